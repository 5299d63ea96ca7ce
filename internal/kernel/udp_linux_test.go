//go:build amd64 || arm64

package kernel

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// newUDPBackend returns the address of an endpoint that answers each datagram with its own address.
func newUDPBackend(t *testing.T, at string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		t.Fatal(err)
	}
	addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
	var running sync.WaitGroup
	running.Go(func() {
		b := make([]byte, 100)
		for {
			_, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteToUDPAddrPort([]byte(addr.String()), from)
			}
		}
	})
	t.Cleanup(func() { _ = c.Close(); running.Wait() })
	return addr
}

// udpSocket opens a UDP socket that is not connected.
func udpSocket(t *testing.T, network string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP(network, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends a datagram, and returns what answers. It checks that the answer comes from to.
func ask(t *testing.T, c *net.UDPConn, to netip.AddrPort) netip.AddrPort {
	t.Helper()
	b := make([]byte, 100)
	if err := c.SetReadDeadline(time.Now().Add(testproc.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteToUDPAddrPort([]byte("x"), to); err != nil {
		t.Fatal(err)
	}
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); got != to {
		t.Errorf("the answer comes from %v, want %v", got, to)
	}
	return netip.MustParseAddrPort(string(b[:n]))
}

func TestUDPSocketsKeepTheirEndpoint(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	front6 := netip.MustParseAddrPort("[::1]:7000")
	s := Service{Name: "web", UDP: true, Listen: []netip.AddrPort{front, front6}}
	for i := range 3 {
		s.Endpoints = append(s.Endpoints, Endpoint{Addr: newUDPBackend(t, "127.0.0.1:0"), Key: uint64(i)})
	}
	set(t, p, s)
	count := map[netip.AddrPort]int{}
	var last *net.UDPConn
	var lasts netip.AddrPort
	for _, network := range []string{"udp4", "udp4", "udp4", "udp", "udp", "udp"} { // "udp" sends from an IPv6 socket
		last = udpSocket(t, network)
		lasts = ask(t, last, front)
		for range 5 {
			if again := ask(t, last, front); again != lasts {
				t.Errorf("a datagram went to %v, the first to %v", again, lasts)
			}
		}
		count[lasts]++
	}
	for _, e := range s.Endpoints {
		if count[e.Addr] != 2 {
			t.Errorf("%d sockets got %v, want 2", count[e.Addr], e.Addr)
		}
	}
	if c, _ := p.Counters("web"); c != (Counters{Picks: 6, Connections: 6}) {
		t.Errorf("counters are %+v, want 6 sessions", c)
	}
	// When the endpoint leaves, the next datagram goes to another one.
	var rest []Endpoint
	for _, e := range s.Endpoints {
		if e.Addr != lasts {
			rest = append(rest, e)
		}
	}
	s.Endpoints = rest
	set(t, p, s)
	if next := ask(t, last, front); next == lasts {
		t.Errorf("a datagram still goes to %v", next)
	}
	// An idle session gets another endpoint in its turn.
	s.IdleTimeout = time.Nanosecond
	set(t, p, s)
	seen := map[netip.AddrPort]bool{}
	for range 4 {
		seen[ask(t, last, front)] = true
	}
	if len(seen) != 2 {
		t.Errorf("an idle socket reached %d endpoints, want 2", len(seen))
	}
}

func TestUDPOverIPv6AndConnected(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	front6 := netip.MustParseAddrPort("[::1]:7000")
	b6, b4 := newUDPBackend(t, "[::1]:0"), newUDPBackend(t, "127.0.0.1:0")
	set(t, p, Service{Name: "web", UDP: true, Listen: []netip.AddrPort{front6}, Endpoints: []Endpoint{{Addr: b6}}})
	dns := Service{Name: "dns", UDP: true, Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: b4, Key: 3}}}
	set(t, p, dns)
	c := udpSocket(t, "udp6")
	if got := ask(t, c, front6); got != b6 {
		t.Errorf("%v answers, want %v", got, b6)
	}
	conn, err := net.Dial("udp", front.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if got := conn.RemoteAddr().String(); got != front.String() {
		t.Errorf("the peer is %v, want %v", got, front)
	}
	read := func() error {
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		b := make([]byte, 100)
		n, from, err := conn.(*net.UDPConn).ReadFromUDPAddrPort(b)
		if err == nil && (from != front || string(b[:n]) != b4.String()) {
			t.Errorf("%s answers as %v, want %v as %v", b[:n], from, b4, front)
		}
		return err
	}
	if err := read(); err != nil {
		t.Error(err)
	}
	set(t, p, Service{Name: "dns", UDP: true, Listen: []netip.AddrPort{front}})
	if n, err := p.Cut("dns", []uint64{3}); n != 1 || err != nil {
		t.Errorf("%d sockets were destroyed (%v), want 1", n, err)
	}
	if err := read(); !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.EDESTADDRREQ) {
		t.Errorf("error %v, want that the connection was aborted", err)
	}
	// TCP at the same address is not a UDP service.
	if _, err := net.Dial("tcp", front6.String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("error %v, want connection refused", err)
	}
	if err := errors.Join(p.Remove("web"), p.Remove("dns")); err != nil {
		t.Error(err)
	}
	if p.udpLinks != nil {
		t.Error("the programs for datagrams are attached without a UDP service")
	}
}
