package proxy

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

// benchUDP returns a working UDP socket with one live session, and the session's key.
func benchUDP(t testing.TB) (*udpSocket, sessionKey) {
	t.Helper()
	// No goroutine reads from this socket. The kernel drops what does not fit.
	sink, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	balancer := lb.NewRoundRobin()
	addr := sink.LocalAddr().(*net.UDPAddr).AddrPort()
	balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{{ID: "a", Addr: addr}}}})
	p, err := New(Options{LoadBalancer: balancer, Engine: EnginePortable})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply([]Service{{Name: "s", Protocol: UDP, Listen: []netip.AddrPort{loopback}}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); sink.Close() })
	for _, s := range p.sockets {
		key := sessionKey{client: netip.MustParseAddrPort("127.0.0.1:9")}
		u := s.proxySocket.(*udpSocket)
		u.forward(key, []byte("x"), nil)
		return u, key
	}
	panic("unreachable")
}

func TestUDPForwardAllocatesNothing(t *testing.T) {
	u, key := benchUDP(t)
	b := make([]byte, 64)
	if n := testing.AllocsPerRun(1000, func() { u.forward(key, b, nil) }); n != 0 {
		t.Errorf("a datagram on a live session allocates %v times, want 0", n)
	}
}

func BenchmarkUDPForward(b *testing.B) {
	u, key := benchUDP(b)
	msg := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		u.forward(key, msg, nil)
	}
}

// BenchmarkUDPExchange measures a request and its answer over a live session, including client and server.
func BenchmarkUDPExchange(b *testing.B) {
	server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			server.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	defer server.Close()
	direct := server.LocalAddr().(*net.UDPAddr).AddrPort()
	exchange := func(b *testing.B, addr netip.AddrPort) {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		msg := make([]byte, 64)
		b.ReportAllocs()
		for b.Loop() {
			c.Write(msg)
			if _, err := c.Read(msg); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("direct", func(b *testing.B) { exchange(b, direct) })
	b.Run("lictor", func(b *testing.B) {
		exchange(b, benchProxy(b, EngineAuto, UDP, direct))
	})
}

func benchProxy(b *testing.B, e Engine, p Protocol, backend netip.AddrPort) netip.AddrPort {
	balancer := lb.NewRoundRobin()
	balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{{ID: "a", Addr: backend}}}})
	proxier, err := New(Options{LoadBalancer: balancer, Engine: e})
	if err != nil {
		b.Fatal(err)
	}
	if err := proxier.Apply([]Service{{Name: "s", Protocol: p, Listen: []netip.AddrPort{loopback}}}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { proxier.Close() })
	return proxier.Listeners()[0].Addr.AddrPort
}

// ioCopyProxy is the baseline of the TCP benchmarks: io.Copy in both directions over bare connections.
func ioCopyProxy(b *testing.B, backend netip.AddrPort) netip.AddrPort {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				server, err := net.Dial("tcp4", backend.String())
				if err != nil {
					client.Close()
					return
				}
				go func() { io.Copy(server, client); server.(*net.TCPConn).CloseWrite() }()
				io.Copy(client, server)
				client.Close()
				server.Close()
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func benchEcho(b *testing.B) netip.AddrPort {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { echo(c.(*net.TCPConn)); c.Close() }()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// BenchmarkTCP measures client, proxy and server in one process. The figures of BenchmarkTCP are for comparison with
// each other only.
func BenchmarkTCP(b *testing.B) {
	targets := []struct {
		name string
		addr func(b *testing.B) netip.AddrPort
	}{
		{"direct", benchEcho},
		{"iocopy", func(b *testing.B) netip.AddrPort { return ioCopyProxy(b, benchEcho(b)) }},
		{"auto", func(b *testing.B) netip.AddrPort { return benchProxy(b, EngineAuto, TCP, benchEcho(b)) }},
		{"portable", func(b *testing.B) netip.AddrPort { return benchProxy(b, EnginePortable, TCP, benchEcho(b)) }},
	}
	for _, target := range targets {
		addr := target.addr(b).String()
		b.Run("request/"+target.name, func(b *testing.B) {
			c, err := net.Dial("tcp4", addr)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			msg := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				c.Write(msg)
				if _, err := io.ReadFull(c, msg); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("connect/"+target.name, func(b *testing.B) {
			msg := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				c, err := net.Dial("tcp4", addr)
				if err != nil {
					b.Fatal(err)
				}
				c.Write(msg)
				if _, err := io.ReadFull(c, msg); err != nil {
					b.Fatal(err)
				}
				c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT, because local ports would run out
				c.Close()
			}
		})
		b.Run("bulk/"+target.name, func(b *testing.B) {
			c, err := net.Dial("tcp4", addr)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			msg, back := make([]byte, 1<<20), make([]byte, 1<<20)
			b.SetBytes(2 << 20)
			b.ReportAllocs()
			for b.Loop() {
				go c.Write(msg)
				if _, err := io.ReadFull(c, back); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
