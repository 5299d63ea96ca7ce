package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// hopsServer answers each datagram with the datagram itself and its remaining hop limit.
func hopsServer(t *testing.T, at string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	switch {
	case err != nil && netip.MustParseAddrPort(at).Addr().Is4():
		t.Fatal(err)
	case err != nil: // the host has no IPv6
		t.Skip(err)
	}
	addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := sys.WantHopsConn(c, addr.Addr()); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		buf, oob := make([]byte, maxDatagram), make([]byte, 100)
		for {
			n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %d", buf[:n], sys.Hops(oob[:oobn])), from)
		}
	})
	t.Cleanup(func() { c.Close(); running.Wait() })
	return addr
}

// dialWithHops returns a client whose datagrams have the given hop limit.
func dialWithHops(t *testing.T, addr netip.AddrPort, hops int) *net.UDPConn {
	t.Helper()
	c := dialUDP(t, addr)
	if addr.Addr().Is4() {
		setUDP(t, c, unix.IPPROTO_IP, unix.IP_TTL, hops)
	} else {
		setUDP(t, c, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops)
	}
	return c
}

// Datagrams of a session are forwarded with a hop limit one below that of the session's first datagram.
func TestUDPTakesAHop(t *testing.T) {
	for _, tt := range []struct{ name, listen, dial, endpoint string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1", "127.0.0.1:0"},
		{"IPv6", "[::1]:0", "::1", "[::1]:0"},
		{"from IPv4 to IPv6", "127.0.0.1:0", "127.0.0.1", "[::1]:0"},
		{"from IPv6 to IPv4", "[::1]:0", "::1", "127.0.0.1:0"},
		{"by a wildcard", "0.0.0.0:0", "127.0.0.1", "127.0.0.1:0"},
		{"by the IPv6 wildcard", "[::]:0", "::1", "127.0.0.1:0"},
		{"over IPv4 by the IPv6 wildcard", "[::]:0", "127.0.0.1", "127.0.0.1:0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				endpoint := hopsServer(t, tt.endpoint)
				addr := h.serve(Service{Protocol: UDP, Listen: listen(netip.MustParseAddrPort(tt.listen))}, endpoint)
				addr = netip.AddrPortFrom(netip.MustParseAddr(tt.dial), addr.Port())
				for _, hops := range []int{2, 10, 64, 65, 255} {
					c := dialWithHops(t, addr, hops)
					for i := range 4 {
						want := fmt.Sprintf("%d %d", i, hops-1)
						if got := askOnce(t, c, fmt.Sprint(i)); got != want {
							t.Errorf("with %d hops, datagram %d: got %q, want %q", hops, i, got, want)
						}
					}
				}
			})
		})
	}
}

// A datagram whose hop limit has run out is dropped and counted.
func TestUDPLastHop(t *testing.T) {
	for _, responses := range []int{0, -1} {
		forEachEngine(t, func(t *testing.T, h *house) {
			server := udpServer(t, func([]byte) []byte { t.Error("the datagram arrived"); return nil })
			addr := h.serve(Service{Protocol: UDP, Responses: responses}, server)
			c := dialWithHops(t, addr, 1)
			for i := range int64(3) {
				c.Write([]byte("x"))
				eventually(t, equals("dropped", func() int64 { return h.stats().DatagramsDropped }, i+1))
			}
			if s := h.stats(); s.DatagramsUp > 0 || s.SessionsActive > 0 {
				t.Errorf("%d were forwarded in %d sessions, want none", s.DatagramsUp, s.SessionsActive)
			}
		})
	}
}

// Datagrams that are received or sent in one burst lose a hop too. Datagrams that wait for the lookup of a host name
// lose a hop as well.
func TestUDPBurstsTakeAHop(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		endpoint := hopsServer(t, "127.0.0.1:0")
		addr := h.serve(Service{Protocol: UDP})
		endpoints := []lb.Endpoint{{ID: "a", Addr: endpoint}}
		addrs, err := net.DefaultResolver.LookupNetIP(t.Context(), "ip", "localhost")
		if err == nil && addrs[0].Unmap() == endpoint.Addr() {
			endpoints = append(endpoints, byName(endpoint.Port()))
		}
		for _, e := range endpoints {
			h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{e}}})
			for _, size := range []int{1, 100} { // equal sizes, so that datagrams can be joined
				c := dialWithHops(t, addr, 40)
				text := strings.Repeat("x", size)
				for round := range 2 {
					for range 8 {
						c.Write([]byte(text))
					}
					for i := range 8 {
						if got := receive(t, c); got != text+" 39" {
							t.Errorf("%v, round %d, datagram %d: got %q, want 39 hops", e, round, i, got)
						}
					}
				}
			}
		}
	})
}

// Clients of a one-way service keep their own hop limits, although they share one socket.
func TestUDPOneWayTakesAHop(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		received := make(chan string, 100)
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
		if err != nil {
			t.Fatal(err)
		}
		if err := sys.WantHopsConn(c, loopback.Addr()); err != nil {
			t.Fatal(err)
		}
		var running sync.WaitGroup
		running.Go(func() {
			buf, oob := make([]byte, 100), make([]byte, 100)
			for {
				n, oobn, _, _, err := c.ReadMsgUDPAddrPort(buf, oob)
				if err != nil {
					return
				}
				received <- fmt.Sprintf("%s %d", buf[:n], sys.Hops(oob[:oobn]))
			}
		})
		t.Cleanup(func() { c.Close(); running.Wait() })
		addr := h.serve(Service{Protocol: UDP, Responses: -1}, c.LocalAddr().(*net.UDPAddr).AddrPort())
		for round := range 3 {
			for _, hops := range []int{64, 30, 200, 64} {
				dialWithHops(t, addr, hops).Write(fmt.Append(nil, round))
				if got, want := <-received, fmt.Sprintf("%d %d", round, hops-1); got != want {
					t.Errorf("a client with %d hops: got %q, want %q", hops, got, want)
				}
			}
		}
	})
}

// A session that is handed over keeps its hop limit, even after a single datagram.
func TestHandedSessionKeepsItsHops(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		services := []Service{{Name: "s", Protocol: UDP, Listen: listen(freePort(t, UDP))}}
		addr := h.serve(services[0], hopsServer(t, "127.0.0.1:0"))
		c := dialWithHops(t, addr, 20)
		if got := askOnce(t, c, "first"); got != "first 19" {
			t.Errorf("got %q", got)
		}
		next := succeed(t, h.Proxier, h.options, services)
		defer next.Close()
		if got := askOnce(t, c, "second"); got != "second 19" {
			t.Errorf("got %q", got)
		}
	})
}

// If the kernel does not accept a hop limit with each datagram, the hop limit is set on the socket.
func TestUDPTakesAHopWithoutControlMessages(t *testing.T) {
	onLoops(t, 1, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP}, hopsServer(t, "127.0.0.1:0"))
		h.denied.Note(sys.CallHopsMessage, unix.EINVAL)
		c := dialWithHops(t, addr, 50)
		for range 2 {
			if got := askOnce(t, c, "x"); got != "x 49" {
				t.Errorf("got %q, want 49 hops", got)
			}
		}
	})
}
