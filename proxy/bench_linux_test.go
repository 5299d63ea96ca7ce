package proxy

import (
	"io"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/batch"
)

// benchLoop returns the socket of a service on a Proxier with one loop, and that loop.
func benchLoop(t testing.TB, service Service, endpoint net.Addr) (proxySocket, *eventLoop) {
	t.Helper()
	addr := loopback
	switch a := endpoint.(type) {
	case *net.TCPAddr:
		addr = a.AddrPort()
	case *net.UDPAddr:
		addr = a.AddrPort()
	}
	balancer := lb.NewRoundRobin()
	balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{{ID: "a", Addr: addr}}}})
	proxier, err := New(Options{LoadBalancer: balancer, Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxier.Close() })
	service.Name, service.Listen = "s", listen(loopback)
	if err := proxier.Apply([]Service{service}); err != nil {
		t.Fatal(err)
	}
	l := proxier.engine.(*loopEngine).loops[0]
	l.do(func() {}) // by now the loop listens
	for _, s := range proxier.sockets {
		return s.proxySocket, l
	}
	panic("unreachable")
}

// awaitShard waits until a shard listens.
func awaitShard(l *eventLoop, h *udpShard) {
	for listening := false; !listening; {
		l.do(func() { listening = h.watched })
	}
}

// receiveSome receives n datagrams of 64 bytes into a batch.
func receiveSome(b *testing.B, in *batch.Batch, n int) {
	var ends [2]int32
	for i := range ends {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer unix.Close(fd)
		ends[i] = int32(fd)
	}
	if err := unix.Bind(int(ends[0]), &unix.SockaddrInet4{Addr: loopback.Addr().As4()}); err != nil {
		b.Fatal(err)
	}
	addr, err := unix.Getsockname(int(ends[0]))
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		if err := unix.Sendto(int(ends[1]), make([]byte, 64), 0, addr); err != nil {
			b.Fatal(err)
		}
		if got, err := in.Receive(ends[0], i, 1); got != 1 {
			b.Fatal(got, err)
		}
	}
}

// BenchmarkLoopUDPForward measures how a loop forwards a received batch with one datagram of each client. The loop
// finds the live sessions, and sends the datagrams to an endpoint that does not read.
func BenchmarkLoopUDPForward(b *testing.B) {
	for _, bb := range []struct {
		name    string
		clients int
	}{{"1", 1}, {"64", batch.Size}} {
		b.Run(bb.name, func(b *testing.B) {
			sink, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { sink.Close() })
			s, l := benchLoop(b, Service{Protocol: UDP}, sink.LocalAddr())
			h := s.(*loopUDP).shards[0]
			b.ReportAllocs()
			awaitShard(l, h)
			l.do(func() {
				in := l.udp.in
				receiveSome(b, in, bb.clients)
				for i := range bb.clients {
					in.Names[i].Family, in.Names[i].Port = unix.AF_INET, uint16(i+1)
				}
				for b.Loop() {
					h.forward(in, bb.clients)
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*bb.clients), "ns/datagram")
		})
	}
}

// BenchmarkLoopUDPClients measures a datagram of a new client. The datagram is read from the listener's socket, a
// session begins, and the datagram is sent to an endpoint that does not read. Before that, the session of another
// client ends, as if it were idle.
func BenchmarkLoopUDPClients(b *testing.B) {
	for _, bb := range []struct {
		name      string
		responses int
	}{{"sessions", 0}, {"one-way", -1}} {
		b.Run(bb.name, func(b *testing.B) {
			sink, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { sink.Close() })
			s, l := benchLoop(b, Service{Protocol: UDP, Responses: bb.responses}, sink.LocalAddr())
			h := s.(*loopUDP).shards[0]
			client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.Addr().AddrPort))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { client.Close() })
			b.ReportAllocs()
			awaitShard(l, h)
			l.do(func() {
				h.suspend() // stops the loop from reading by itself
				for b.Loop() {
					for x := h.ring.first; x != nil; x = h.ring.first {
						x.end(endIdle)
					}
					client.Write([]byte("x"))
					n, _ := l.udp.in.Receive(h.fd, 0, batch.Size)
					h.forward(l.udp.in, n)
				}
				h.resume()
			})
		})
	}
}

// BenchmarkLoopTCPRelay measures 64 bytes that a pair relays in one step, including the client's write and the
// endpoint's read.
func BenchmarkLoopTCPRelay(b *testing.B) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	s, l := benchLoop(b, Service{}, listener.Addr())
	c, err := net.Dial("tcp4", s.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	endpoint, err := listener.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { endpoint.Close() })
	msg := make([]byte, 64)
	c.Write(msg)
	io.ReadFull(endpoint, msg) // by now the pair relays
	b.ReportAllocs()
	l.do(func() {
		for _, p := range l.sockets {
			if p, ok := p.(*loopPair); ok {
				for b.Loop() {
					c.Write(msg)
					p.ready(clientSide, unix.EPOLLIN)
					if _, err := io.ReadFull(endpoint, msg); err != nil {
						b.Error(err)
						return
					}
				}
			}
		}
	})
}

// BenchmarkConnections measures how long a listing of placesAtOnce connections blocks a loop.
func BenchmarkConnections(b *testing.B) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	s, l := benchLoop(b, Service{}, listener.Addr())
	for range placesAtOnce {
		c, err := net.Dial("tcp4", s.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		endpoint, err := listener.Accept()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { endpoint.Close() })
	}
	e := s.(*loopTCP).engine
	at := place{shard: slices.Index(e.loops, l)}
	page := make([]Connection, 0, placesAtOnce)
	b.ReportAllocs()
	for b.Loop() {
		page = page[:0]
		e.list(at, &ConnectionQuery{Limit: placesAtOnce}, &page)
	}
	b.ReportMetric(float64(len(page)), "connections")
}
