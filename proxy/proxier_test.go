package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

func listen(addrs ...netip.AddrPort) []netip.AddrPort { return addrs }

func TestApplyIsAllOrNothing(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		taken, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		inUse := taken.Addr().(*net.TCPAddr).AddrPort()
		old := h.serve(Service{}, tcpServer(t, echo))
		c := dialTCP(t, old)
		exchange(t, c, "before")

		free := freePort(t, TCP)
		err = h.Apply([]Service{
			{Name: "free", Listen: listen(free)},
			{Name: "taken", Listen: listen(inUse)},
			{Name: "nowhere", Listen: listen(netip.MustParseAddrPort("203.0.113.1:80"))},
		})
		if !errors.Is(err, syscall.EADDRINUSE) || !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("got %v, want an error for each of the two", err)
		}
		for _, want := range []string{`service "taken"`, `service "nowhere"`, inUse.String()} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want it to name %s", err, want)
			}
		}
		if l := h.Listeners(); len(l) != 1 || l[0].Addr.AddrPort != old {
			t.Errorf("got listeners %v, want the old one", l)
		}
		exchange(t, c, "after")
		exchange(t, dialTCP(t, old), "new")
		if l, err := net.Listen("tcp4", free.String()); err != nil {
			t.Errorf("the listener that could be opened is still open: %v", err)
		} else {
			l.Close()
		}
	})
}

func TestApplyLeavesEqualServicesAlone(t *testing.T) {
	for _, p := range []Protocol{TCP, UDP} {
		t.Run(p.String(), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				services := []Service{{Name: "s", Protocol: p, Listen: listen(loopback), ConnectTimeout: time.Minute}}
				addr := h.serve(services[0])
				other := Service{Name: "other", Protocol: p, Listen: listen(loopback)}
				for _, next := range [][]Service{append(services, other), services} {
					if err := h.Apply(next); err != nil {
						t.Fatal(err)
					}
					found := false
					for _, l := range h.Listeners() {
						found = found || l.Service == "s" && l.Addr.AddrPort == addr
					}
					if !found {
						t.Errorf("got %v, want s at %v still", h.Listeners(), addr)
					}
				}
			})
		})
	}
}

func TestApplyChangesASettingWithoutClosing(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server := tcpServer(t, echo)
		addr := h.serve(Service{}, server)
		old := dialTCP(t, addr)
		exchange(t, old, "before")
		if now := h.serve(Service{IdleTimeout: 100 * time.Millisecond}, server); now != addr {
			t.Errorf("listens on %v now, want %v still", now, addr)
		}
		if _, err := io.ReadAll(dialTCP(t, addr)); err != nil {
			t.Errorf("a new client got %v, want the end by the new idle timeout", err)
		}
		exchange(t, old, "after")
		if n := h.stats().Connections; n != 2 {
			t.Errorf("counted %d connections, want 2: counters outlive a change", n)
		}
	})
}

func TestApplyMovesAnAddressToAnotherService(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		for _, p := range []Protocol{TCP, UDP} {
			addr := freePort(t, p)
			backend := map[Protocol]func(string) netip.AddrPort{
				TCP: func(n string) netip.AddrPort { return tcpServer(t, named(n+":x")) },
				UDP: func(n string) netip.AddrPort { return udpServer(t, says(n)) },
			}[p]
			client := func() string { return ask(t, addr) }
			if p == UDP {
				c := dialUDP(t, addr)
				// query would repeat its datagram, and a late answer would come from the old endpoint.
				client = func() string { return askOnce(t, c, "x") }
			}
			h.serve(Service{Protocol: p, Listen: listen(addr)}, backend("old"))
			if got := client(); got != "old:x" {
				t.Errorf("%v: got %q, want old", p, got)
			}
			h.endpoints("heir", backend("heir"))
			if err := h.Apply([]Service{{Name: "heir", Protocol: p, Listen: listen(addr)}}); err != nil {
				t.Fatal(err)
			}
			if got := client(); got != "heir:x" {
				t.Errorf("%v: got %q, want heir", p, got)
			}
		}
	})
}

func TestRemovedTCPListenerDrains(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Listen: listen(freePort(t, TCP))}, tcpServer(t, echo))
		c := dialTCP(t, addr)
		exchange(t, c, "before")
		if err := h.Apply(nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if c, err := net.Dial("tcp", addr.String()); err == nil {
				c.Close()
				return errPending
			}
			return nil
		})
		exchange(t, c, "after")
		// The address can be bound again while the connection goes on.
		if err := h.Apply([]Service{{Name: "s", Listen: listen(addr)}}); err != nil {
			t.Fatal(err)
		}
		exchange(t, c, "still")
		exchange(t, dialTCP(t, addr), "new")
	})
}

func TestShutdownWaitsForConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, tcpServer(t, echo))
		c := dialTCP(t, addr)
		exchange(t, c, "before")
		down := make(chan error, 1)
		go func() { down <- h.Shutdown(t.Context()) }()
		eventually(t, func() error {
			if c, err := net.Dial("tcp", addr.String()); err == nil {
				c.Close()
				return errPending
			}
			return nil
		})
		exchange(t, c, "meanwhile")
		select {
		case err := <-down:
			t.Fatalf("Shutdown returned %v with a connection open", err)
		default:
		}
		c.Close()
		if err := <-down; err != nil {
			t.Errorf("got %v, want nil", err)
		}
		if err := h.Apply(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Apply after Shutdown: got %v, want ErrClosed", err)
		}
	})
}

func TestShutdownCutsWhenItsContextEnds(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		serverEnd := make(chan error, 1)
		c := dialTCP(t, h.serve(Service{}, tcpServer(t, func(c testConn) {
			io.CopyN(c, c, 6)
			_, err := c.Read(make([]byte, 1))
			serverEnd <- err
		})))
		exchange(t, c, "before")
		if err := h.Shutdown(short(t)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
		_, err := io.ReadAll(c)
		wantReset(t, err)
		wantReset(t, <-serverEnd)
	})
}

func TestCloseCutsADialThatHangs(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		c := dialTCP(t, h.serve(Service{ConnectTimeout: time.Minute}, stuckPort(t)))
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 1))
		h.Close()
		_, err := io.ReadAll(c)
		wantReset(t, err)
	})
}

// During Shutdown an answer still reaches its client, and new clients are not served.
func TestShutdownWaitsForUDPAnswers(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		asked, release := make(chan struct{}), make(chan struct{})
		addr := h.serve(Service{Protocol: UDP}, udpServer(t, func(b []byte) []byte {
			close(asked)
			<-release
			return b
		}))
		c := dialUDP(t, addr)
		c.Write([]byte("x"))
		<-asked
		down := make(chan error, 1)
		go func() { down <- h.Shutdown(t.Context()) }()
		close(release)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 10)); err != nil {
			t.Errorf("got %v, want the answer", err)
		}
		if err := <-down; err != nil {
			t.Errorf("got %v, want nil", err)
		}
	})
}

func TestCloseTwice(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.serve(Service{}, tcpServer(t, echo))
		h.Close()
		if err := h.Close(); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	})
}

func TestTooManyListenersForTheDescriptors(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.MaxDescriptors = 20
		h.start()
		var services []Service
		for _, name := range strings.Split("abcdefghijklm", "") {
			services = append(services, Service{Name: name, Listen: listen(loopback)})
		}
		err := h.Apply(services)
		if err == nil || !strings.Contains(err.Error(), "ulimit -n") {
			t.Errorf("got %v, want an error that says what to raise", err)
		}
		n := h.budget.total / listenerDescriptors
		if err := h.Apply(services[:n]); err != nil {
			t.Errorf("%d listeners: %v, want them to be open: the failed Apply must give back what it took", n, err)
		}
	})
}

func TestRemovedListenersCanComeBackAtOnce(t *testing.T) {
	for _, p := range []Protocol{TCP, UDP} {
		t.Run(p.String(), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				services := []Service{{Name: "s", Protocol: p, Listen: listen(freePort(t, p))}}
				h.start()
				for range 30 {
					if err := errors.Join(h.Apply(services), h.Apply(nil)); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// TCP clients that wait for descriptors do not get the descriptors of UDP sessions that end for other UDP clients.
func TestUDPKeepsItsDescriptorsFromWaitingTCPClients(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 2
		h.options.MaxDescriptors = 60 // of which ten are less than an equal part
		h.start()
		h.endpoints("t", tcpServer(t, echo))
		h.endpoints("u", udpServer(t, says("u")))
		if err := h.Apply([]Service{{Name: "t", Listen: listen(loopback)},
			{Name: "u", Protocol: UDP, Listen: listen(loopback)}}); err != nil {
			t.Fatal(err)
		}
		tcp, udp := h.Listeners()[0].Addr.AddrPort, h.Listeners()[1].Addr.AddrPort
		for range 10 {
			query(t, dialUDP(t, udp), "x")
		}
		for range 20 {
			dialTCP(t, tcp)
		}
		want := (h.room() - spare(h) - 10) / pairDescriptors
		eventually(t, equals("TCP connections", func() int64 { return h.Snapshot()[0].ConnectionsActive }, want))
		// Two do not divide the rest. Until a TCP client waits for it, the next UDP client may have what is left.
		eventually(t, equals("a TCP client waits", h.budget.waiting.Load, true))
		for range 30 {
			query(t, dialUDP(t, udp), "x")
		}
		eventually(t, equals("sessions", func() int64 { return h.Snapshot()[1].SessionsActive }, 10))
		if s := h.Snapshot()[1]; s.Refused != 0 || s.SessionsEvicted != 30 {
			t.Errorf("got %d sessions ended to make room, %d clients refused, want 30 and 0",
				s.SessionsEvicted, s.Refused)
		}
	})
}

func TestUDPShorterIdleTimeoutTakesEffect(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server := udpServer(t, echoUDP)
		addr := h.serve(Service{Protocol: UDP, IdleTimeout: time.Hour}, server)
		query(t, dialUDP(t, addr), "x")
		h.serve(Service{Protocol: UDP, IdleTimeout: 100 * time.Millisecond}, server)
		query(t, dialUDP(t, addr), "x")
		eventually(t, equals("sessions", func() int64 { return h.stats().SessionsActive }, 0))
	})
}
