package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// greetedFrom dials addr from another address of this host, and returns the connection if it was served.
func greetedFrom(t *testing.T, source string, addr netip.AddrPort) (testConn, error) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.Dial("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err = io.ReadFull(c, make([]byte, 5)); err != nil { // part of "hello" may come first
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// perClient returns how many clients were refused because of MaxPerClient.
func (h *house) perClient() int64 { return h.stats().RefusedBy[RefusedPerClient] }

func TestEachClientHasSoManyConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		next := h.records()
		server := greeter(t)
		addr := h.serve(Service{MaxPerClient: 2}, server)
		var open []testConn
		for range 2 {
			c, err := greetedFrom(t, "127.0.0.1", addr)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		if _, err := greetedFrom(t, "127.0.0.1", addr); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the third connection got %v, want a reset", err)
		}
		if r := next(); r.Reason != ReasonPerClient || r.Endpoint.ID != "" || r.Service != "s" || !r.Client.IsValid() {
			t.Errorf("got the access record %+v", r)
		}
		if n := h.perClient(); n != 1 || h.stats().Refused != 1 {
			t.Errorf("%d of %d were refused because of the client's limit, want 1", n, h.stats().Refused)
		}
		if _, err := greetedFrom(t, "127.0.0.2", addr); err != nil {
			t.Errorf("another client: %v", err)
		}

		open[0].Close()
		eventually(t, equals("connections", h.accepted, 2))
		c, err := greetedFrom(t, "127.0.0.1", addr)
		if err != nil {
			t.Fatalf("after a connection has ended: %v", err)
		}

		// A lower limit ends no connection. Without a limit more clients come, and the earlier connections count again
		// when the limit is back.
		h.serve(Service{MaxPerClient: 1}, server)
		if _, err := greetedFrom(t, "127.0.0.1", addr); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("with a lower limit got %v, want a reset", err)
		}
		exchange(t, c, "still there")
		exchange(t, open[1], "still there")
		h.serve(Service{}, server)
		if _, err := greetedFrom(t, "127.0.0.1", addr); err != nil {
			t.Errorf("without a limit: %v", err)
		}
		h.serve(Service{MaxPerClient: 3}, server)
		if _, err := greetedFrom(t, "127.0.0.1", addr); err != nil {
			t.Errorf("with a higher limit: %v", err)
		}
		if _, err := greetedFrom(t, "127.0.0.1", addr); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("over the higher limit got %v, want a reset", err)
		}
		h.Proxier.Close()
		h.wantNoClients()
	})
}

// wantNoClients checks that no client is counted any more.
func (h *house) wantNoClients() {
	h.Helper()
	for _, s := range h.services {
		s.clients.mu.Lock()
		if n := len(s.clients.of); n != 0 {
			h.Errorf("%d clients are still counted", n)
		}
		s.clients.mu.Unlock()
	}
}

// Clients that wait or cannot be served also count, until they are gone.
func TestClientsCountUntilTheyAreGone(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{MaxPerClient: 3}, deadPort(t))
		for range 20 {
			if _, err := greetedFrom(t, "127.0.0.1", addr); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("got %v, want a reset", err)
			}
			eventually(t, equals("connections", h.accepted, 0))
		}
		if n := h.perClient(); n != 0 {
			t.Errorf("%d were refused because of their limit, want none", n)
		}
		h.wantNoClients()
	})
}

func TestEachClientHasSoManySessions(t *testing.T) {
	for _, oneWay := range []bool{false, true} {
		forEachEngine(t, func(t *testing.T, h *house) {
			var arrived sync.Map
			server := udpServer(t, func(b []byte) []byte {
				arrived.Store(string(b), true)
				return b
			})
			spec := Service{Protocol: UDP, MaxPerClient: 2, IdleTimeout: time.Hour}
			if oneWay {
				spec.Responses = -1
			}
			addr := h.serve(spec, server)
			begin := func(c *net.UDPConn, text string) {
				t.Helper()
				eventually(t, func() error {
					_, _ = c.Write([]byte(text))
					if _, ok := arrived.Load(text); !ok {
						return errPending
					}
					return nil
				})
			}
			one, two, three := dialUDP(t, addr), dialUDP(t, addr), dialUDP(t, addr)
			begin(one, "one")
			begin(two, "two")
			eventually(t, equals("sessions", func() int64 { return h.stats().SessionsActive }, 2))
			eventually(t, func() error {
				_, _ = three.Write([]byte("three"))
				if h.perClient() == 0 {
					return errPending
				}
				return nil
			})
			if s := h.stats(); s.SessionsActive != 2 || s.SessionsEvicted != 0 || s.DatagramsDropped == 0 {
				t.Errorf("%d sessions, %d evicted, %d datagrams dropped, want 2, none and some",
					s.SessionsActive, s.SessionsEvicted, s.DatagramsDropped)
			}
			other, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, net.UDPAddrFromAddrPort(addr))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { other.Close() })
			begin(other, "other")

			// When a client's sessions have ended, it may have new ones.
			spec.IdleTimeout = 10 * time.Millisecond
			h.serve(spec, server)
			eventually(t, equals("sessions", func() int64 { return h.stats().SessionsActive }, 0))
			h.wantNoClients()
			spec.IdleTimeout = time.Hour
			h.serve(spec, server)
			begin(three, "three")
		})
	}
}

// What a client has in other processes counts for its limit here. ClientCounts returns what it has here.
func TestForeignClientsCount(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr, local := h.serve(Service{MaxPerClient: 2}, greeter(t)), ClientKey{Addr: netip.MustParseAddr("127.0.0.1")}
		ended := make(chan struct{}, 1)
		h.NotifyUncounted(func() { ended <- struct{}{} })
		h.SetForeignClients("none", map[ClientKey]int{local: 1})
		h.SetForeignClients("s", map[ClientKey]int{local: 1})
		c, err := greetedFrom(t, "127.0.0.1", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := greetedFrom(t, "127.0.0.1", addr); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the third connection got %v, want a reset", err)
		}
		if got := h.ClientCounts(); len(got) != 1 || len(got["s"]) != 1 || got["s"][local] != 1 {
			t.Errorf("got %v, want one of %v", got, local)
		}
		h.SetForeignClients("s", nil)
		if _, err := greetedFrom(t, "127.0.0.1", addr); err != nil {
			t.Errorf("without connections in another process: %v", err)
		}
		c.Close()
		testproc.Receive(t, "a call of NotifyUncounted's function", ended)
	})
}

func TestClientCountForgetsWhoIsGone(t *testing.T) {
	var c clientCount
	addr := func(i int) ClientKey { return ClientKey{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})} }
	for i := range 1000 {
		if !c.enter(addr(i), 1) || c.enter(addr(i), 1) || !c.enter(addr(i), 2) {
			t.Fatalf("client %d does not have 2 of 2", i)
		}
	}
	for i := range 1000 {
		c.leave(addr(i))
		c.leave(addr(i))
	}
	if c.of != nil {
		t.Errorf("the map of %d clients was kept, want it dropped", len(c.of))
	}
}
