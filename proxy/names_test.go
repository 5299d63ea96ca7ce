package proxy

import (
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lictor-proxy/lictor/internal/testdns"
	"github.com/lictor-proxy/lictor/lb"
)

// No process listens on deadAddr; test servers listen on aliveAddr.
var deadAddr, aliveAddr = netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")

// serveName serves "s" with one endpoint, which has a host name.
func (h *house) serveName(s Service, host string, port uint16) netip.AddrPort {
	h.Helper()
	addr := h.serve(s)
	h.Cleanup(func() { h.Proxier.Close() }) // before the name server ends, because a lookup may still ask it
	h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{
		{ID: "name", Host: host, Addr: netip.AddrPortFrom(netip.Addr{}, port)},
	}}})
	return addr
}

// If the first address of a name is dead, clients are served at the next address. Only the very first datagram is lost.
func TestUDPNameWithADeadFirstAddress(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		testdns.Start(t, func(string) []netip.Addr { return []netip.Addr{deadAddr, aliveAddr} })
		server := udpServer(t, says("alive"))
		h.balancer.Configure("s", lb.Options{Network: lb.UDP})
		addr := h.serveName(Service{Protocol: UDP}, "both.test", server.Port())
		clients := []*net.UDPConn{dialUDP(t, addr), dialUDP(t, addr)}
		for _, c := range clients { // both sessions go to the dead address
			c.Write([]byte("lost"))
			eventually(t, equals("sessions", func() int64 { return h.stats().Sessions }, 1))
			break
		}
		eventually(t, func() error {
			if h.stats().DialsFailed == 0 {
				return errPending
			}
			return nil
		})
		for _, c := range clients {
			for range 12 {
				if got := askOnce(t, c, "x"); got != "alive:x" {
					t.Errorf("got %q, want alive", got)
				}
			}
		}
		if e := h.balancer.Snapshot()[0].Endpoints[0]; e.Failures != 0 || e.Ejections != 0 {
			t.Errorf("the endpoint has %d failures and %d ejections, want none: one of its addresses answers",
				e.Failures, e.Ejections)
		}
	})
}

// onOnePort starts a server, and opens a socket at deadAddr on the same port. onOnePort tries again if that port is
// taken.
func onOnePort[T any](
	t *testing.T, start func() netip.AddrPort, listen func(netip.AddrPort) (T, error),
) (server netip.AddrPort, socket T) {
	t.Helper()
	var err error
	for range 10 {
		server = start()
		if socket, err = listen(netip.AddrPortFrom(deadAddr, server.Port())); err == nil {
			return server, socket
		}
	}
	t.Fatal(err)
	return server, socket
}

// When an address refuses a datagram, all sessions with that address move at their next datagram.
func TestUDPSessionsMoveToAnotherAddressOfTheName(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server, first := onOnePort(t, func() netip.AddrPort { return udpServer(t, says("alive")) },
			func(at netip.AddrPort) (*net.UDPConn, error) {
				return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
			})
		defer first.Close()
		testdns.Start(t, func(string) []netip.Addr { return []netip.Addr{deadAddr, aliveAddr} })
		addr := h.serveName(Service{Protocol: UDP}, "both.test", server.Port())
		var clients []*net.UDPConn
		for range 10 {
			c := dialUDP(t, addr)
			clients = append(clients, c)
			c.Write([]byte("x"))
			first.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := first.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		first.Close()
		clients[0].Write([]byte("lost"))
		eventually(t, equals("failures", func() int64 { return h.stats().DialsFailed }, 1))
		for i, c := range clients {
			if got := askOnce(t, c, "y"); got != "alive:y" {
				t.Errorf("client %d got %q, want alive", i, got)
			}
		}
	})
}

// One-way sessions, which share a socket, also move to another address of the name.
func TestUDPOneWayToANameWithADeadAddress(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		testdns.Start(t, func(string) []netip.Addr { return []netip.Addr{deadAddr, aliveAddr} })
		var got atomic.Int64
		server := udpServer(t, func([]byte) []byte { got.Add(1); return nil })
		c := dialUDP(t, h.serveName(Service{Protocol: UDP, Responses: -1, Requests: 1}, "both.test", server.Port()))
		eventually(t, func() error {
			c.Write([]byte("x"))
			if got.Load() < 10 {
				return errPending
			}
			return nil
		})
		if e := h.balancer.Snapshot()[0].Endpoints[0]; e.Failures != 0 {
			t.Errorf("the endpoint has %d failures, want none", e.Failures)
		}
	})
}

// TCP connections try all addresses of a name.
func TestTCPTriesAllAddressesOfAName(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		testdns.Start(t, func(string) []netip.Addr { return []netip.Addr{deadAddr, aliveAddr} })
		server := tcpServer(t, named("alive"))
		addr := h.serveName(Service{}, "both.test", server.Port())
		for range 5 {
			if got := ask(t, addr); got != "alive" {
				t.Fatalf("got %q, want alive", got)
			}
		}
		if e := h.balancer.Snapshot()[0].Endpoints[0]; e.Failures != 0 {
			t.Errorf("the endpoint has %d failures, want none", e.Failures)
		}
	})
}

// While name servers fail, clients are served at the known addresses, and there are few lookups.
func TestNamesStayWhileNameServersFail(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		s := testdns.Start(t, quickNames)
		h.options.Resolver = lb.NewResolver(4)
		defer h.options.Resolver.Close()
		server := tcpServer(t, named("alive"))
		addr := h.serveName(Service{}, "quick.test", server.Port())
		if got := ask(t, addr); got != "alive" {
			t.Fatal(got)
		}
		s.Code(dnsmessage.RCodeServerFailure)
		began, clients := time.Now(), 0
		eventually(t, func() error {
			clients++
			if got := ask(t, addr); got != "alive" {
				t.Fatalf("got %q, want alive", got)
			}
			if h.options.Resolver.Lookups().Failed < 3 {
				return errPending
			}
			return nil
		})
		// Package net asks twice in each lookup that fails.
		if n, most := s.Asked("quick.test"), 2*(2+int(time.Since(began)/time.Second)); n > most {
			t.Errorf("%d clients made %d queries, want at most %d", clients, n, most)
		}
	})
}

// If the old address of a name is gone, the client that finds this out is served at the new address.
func TestDialLooksTheNameUpAgain(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		var addrs atomic.Pointer[[]netip.Addr]
		addrs.Store(&[]netip.Addr{deadAddr})
		testdns.Start(t, func(string) []netip.Addr { return slices.Clone(*addrs.Load()) })
		server, old := onOnePort(t, func() netip.AddrPort { return tcpServer(t, named("new")) },
			func(at netip.AddrPort) (*net.TCPListener, error) {
				return net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
			})
		defer old.Close()
		addr := h.serveName(Service{}, "moves.test", server.Port())
		c := dialTCP(t, addr)
		taken, err := old.Accept()
		if err != nil {
			t.Fatal(err)
		}
		taken.Close()
		c.Close()
		addrs.Store(&[]netip.Addr{aliveAddr})
		old.Close()
		// The lookup is younger than its lifetime, so the old address is tried first.
		if got := ask(t, addr); got != "new" {
			t.Errorf("got %q, want new", got)
		}
	})
}
