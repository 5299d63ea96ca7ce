package proxy

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
)

// onLoops runs a test with the given number of event loops.
func onLoops(t *testing.T, loops int, test func(t *testing.T, h *house)) {
	forEachEngine(t, func(t *testing.T, h *house) {
		if h.options.Engine != EngineAuto {
			t.Skip("this test is about event loops")
		}
		h.options.Loops = loops
		test(t, h)
	})
}

func setUDP(t *testing.T, c *net.UDPConn, level, option, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	if err != nil {
		t.Fatal(err)
	}
}

// A client may let the kernel segment its data (UDP_SEGMENT, as QUIC libraries do). Lictor loses no datagram of such a
// client and joins none, even if the last segment is shorter.
func TestUDPSegmentedDatagramsArriveOneByOne(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		for _, tt := range []struct{ segment, total int }{{100, 1000}, {1000, 8500}, {1400, 1400 * 40},
			{1472, 1472*3 + 1}, {1, 64}} {
			t.Run(fmt.Sprintf("%d of %d", tt.segment, tt.total), func(t *testing.T) {
				addr := h.serve(Service{Protocol: UDP, Listen: []netip.AddrPort{loopback}}, udpServer(t, echoUDP))
				c := dialUDP(t, addr)
				setUDP(t, c, unix.SOL_UDP, unix.UDP_SEGMENT, tt.segment)
				sent := make([]byte, tt.total)
				for i := range sent {
					sent[i] = byte(i * 7 >> 3)
				}
				if _, err := c.Write(sent); err != nil {
					t.Fatal(err)
				}
				for rest := sent; len(rest) > 0; {
					want := rest[:min(tt.segment, len(rest))]
					if got := receive(t, c); got != string(want) {
						t.Fatalf("got %d bytes, want %d different ones", len(got), len(want))
					}
					rest = rest[len(want):]
				}
			})
		}
	})
}

// The answers of an endpoint that sends bursts are joined on the way in and segmented on the way out. The client gets
// the same datagrams.
func TestUDPBurstsOfAnswersKeepTheirBounds(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		c := dialUDP(t, h.serve(Service{Protocol: UDP}, server.LocalAddr().(*net.UDPAddr).AddrPort()))
		c.Write([]byte("subscribe"))
		_, session, err := server.ReadFromUDPAddrPort(make([]byte, 20))
		if err != nil {
			t.Fatal(err)
		}
		for round := range 20 {
			if round == 10 {
				setUDP(t, server, unix.SOL_UDP, unix.UDP_SEGMENT, 500)
			}
			var want [][]byte
			for i := range 10 {
				b := bytes.Repeat([]byte{byte(round), byte(i)}, 250)
				if i == 9 {
					b = b[:17]
				}
				want = append(want, b)
			}
			if round < 10 {
				for _, b := range want {
					server.WriteToUDPAddrPort(b, session)
				}
			} else {
				server.WriteToUDPAddrPort(bytes.Join(want, nil), session)
			}
			for i, b := range want {
				if got := receive(t, c); got != string(b) {
					t.Fatalf("round %d, datagram %d: got %d bytes, want %d", round, i, len(got), len(b))
				}
			}
		}
		eventually(t, equals("datagrams down", func() int64 { return h.stats().DatagramsDown }, 200))
		eventually(t, equals("bytes down", func() int64 { return h.stats().BytesDown }, 20*(9*500+17)))
	})
}

// If each datagram must be counted, a burst does not count as one.
func TestUDPRequestsSpreadABurst(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP, Requests: 1}, udpServer(t, says("a")), udpServer(t, says("b")))
		c := dialUDP(t, addr)
		setUDP(t, c, unix.SOL_UDP, unix.UDP_SEGMENT, 10)
		c.Write(make([]byte, 100))
		counts := map[string]int{}
		for range 10 {
			counts[receive(t, c)[:1]]++
		}
		if counts["a"] != 5 || counts["b"] != 5 {
			t.Errorf("got %v, want 5 each", counts)
		}
	})
}

// A burst that needs more sessions than MaxSessions still arrives, because a session sends its datagrams before it
// ends.
func TestUDPBurstOfMoreSessionsThanThereMayBe(t *testing.T) {
	for _, responses := range []int{-1, 0} {
		t.Run(fmt.Sprint(responses, " responses"), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				h.options.Loops = 1
				var got atomic.Int64
				server := udpServer(t, func([]byte) []byte { got.Add(1); return nil })
				c := dialUDP(t, h.serve(Service{Protocol: UDP, Requests: 1, Responses: responses, MaxSessions: 2},
					server))
				setUDP(t, c, unix.SOL_UDP, unix.UDP_SEGMENT, 10)
				c.Write(make([]byte, 400))
				eventually(t, equals("datagrams arrived", got.Load, 40))
				// Datagrams are counted when they have been sent.
				eventually(t, equals("datagrams up", func() int64 { return h.stats().DatagramsUp }, 40))
				if s := h.stats(); s.DatagramsUp != 40 || s.DatagramsDropped != 0 ||
					s.SessionsEvicted+s.SessionsActive < 40 && responses == 0 {
					t.Errorf("got %+v, want 40 datagrams up, none dropped", s)
				}
			})
		})
	}
}

// One-way sessions share the socket to their endpoint and its resolved name. Otherwise, with Requests 1, each datagram
// would cause a lookup.
func TestUDPOneWayResolvesOnce(t *testing.T) {
	onLoops(t, 1, func(t *testing.T, h *house) {
		var got atomic.Int64
		server := udpServer(t, func([]byte) []byte { got.Add(1); return nil })
		addr := h.serve(Service{Protocol: UDP, Responses: -1, Requests: 1})
		h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{
			{ID: "name", Host: "localhost", Addr: netip.AddrPortFrom(netip.Addr{}, server.Port())},
		}}})
		c := dialUDP(t, addr)
		eventually(t, func() error { // localhost may be ::1 first, where no process listens
			c.Write([]byte("x"))
			if got.Load() == 0 {
				return errPending
			}
			return nil
		})
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 0))
		h.engine.(*loopEngine).cancel() // all lookups fail from here on
		failed := h.stats().DialsFailed
		for i := range 20 {
			before := got.Load()
			c.Write([]byte("x"))
			eventually(t, func() error {
				if n := h.stats().DialsFailed; n > failed {
					t.Fatalf("datagram %d was looked up", i)
				}
				return equals("more arrived", func() bool { return got.Load() > before }, true)()
			})
		}
	})
}

// The sockets of all loops belong to one listener. Another process, such as another Lictor, cannot take a share of its
// clients.
func TestUDPAddressInUse(t *testing.T) {
	onLoops(t, 4, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP, Listen: listen(freePort(t, UDP))}, udpServer(t, echoUDP))
		o := &house{T: t, balancer: h.balancer, options: h.options}
		o.start()
		defer o.Proxier.Close()
		err := o.Apply([]Service{{Name: "s", Protocol: UDP, Listen: []netip.AddrPort{addr}}})
		if err == nil {
			t.Fatal("two processes may listen on one address")
		}
		if n := len(o.Listeners()); n != 0 {
			t.Errorf("got %d listeners after an error, want 0", n)
		}
		h.Proxier.Close()
		eventually(t, func() error {
			return o.Apply([]Service{{Name: "s", Protocol: UDP, Listen: []netip.AddrPort{addr}}})
		})
	})
}

// Services with port 0 get different ports, although sockets that share their port could get the port of another
// listener.
func TestUDPChosenPortsAreDistinct(t *testing.T) {
	onLoops(t, 2, func(t *testing.T, h *house) {
		h.start()
		e := h.engine.(*loopEngine)
		s := newService(&Service{Name: "s", Protocol: UDP}, h.balancer, h.log, e.loopCount())
		s.share = h.budget.newShare()
		ports := map[netip.AddrPort]bool{}
		for range 600 { // by chance, 6 of them would share
			if err := e.budget.openListener(listenerDescriptors); err != nil {
				t.Fatal(err)
			}
			u, err := e.listenUDP(listenSpec{addr: lb.Addr{AddrPort: loopback}}, s)
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			if ports[u.Addr().AddrPort] {
				t.Fatalf("two listeners have %v", u.Addr())
			}
			ports[u.Addr().AddrPort] = true
		}
	})
}

// MaxSessions counts the sessions of all loops together, and so does the choice of the session to end.
func TestUDPSessionsOfAllLoopsAreBoundedTogether(t *testing.T) {
	onLoops(t, 4, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP, MaxSessions: 20}, udpServer(t, echoUDP))
		var clients []*net.UDPConn
		for range 100 {
			clients = append(clients, dialUDP(t, addr))
			askOnce(t, clients[len(clients)-1], "x")
		}
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 20))
		before := h.stats().Sessions
		for _, c := range clients[80:] {
			askOnce(t, c, "x")
		}
		if n := h.stats().Sessions; n != before {
			t.Errorf("%d of the newest 20 clients had lost their sessions", n-before)
		}
		for _, d := range h.shards(t) {
			if q := d.holding.Load(); q.count != q.held.Load() {
				t.Errorf("a shard holds %d descriptors, and %d of them are not owed", q.count, q.held.Load())
			}
		}
	})
}

// shards returns the shards of the only listener, after their loops have handled their earlier events.
func (h *house) shards(t *testing.T) []*udpShard {
	h.Proxier.mu.Lock()
	defer h.Proxier.mu.Unlock()
	for _, s := range h.Proxier.sockets {
		u := s.proxySocket.(*loopUDP)
		for _, h := range u.shards {
			h.loop.do(func() {})
		}
		return u.shards
	}
	t.Fatal("no listener")
	return nil
}

// If sessions of other loops use up the budget, a new client still gets a session, and one of theirs ends.
func TestUDPDescriptorsMoveBetweenLoops(t *testing.T) {
	onLoops(t, 2, func(t *testing.T, h *house) {
		h.options.MaxDescriptors = 16
		addr := h.serve(Service{Protocol: UDP}, udpServer(t, echoUDP))
		for range 200 {
			query(t, dialUDP(t, addr), "x")
		}
		ceiling := h.budget.ceiling.Load()
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, ceiling))
		if s := h.stats(); s.Sessions < 200 || s.DatagramsDropped != 0 {
			t.Errorf("got %d sessions and %d datagrams dropped, want 200 and 0", s.Sessions, s.DatagramsDropped)
		}
		h.Apply(nil)
		eventually(t, equals("descriptors taken", h.budget.taken, 0))
	})
}

// A datagram of a live session and its answer cause no allocation.
func TestUDPLoopAllocatesNothing(t *testing.T) {
	onLoops(t, 1, func(t *testing.T, h *house) {
		server := udpServer(t, echoUDP)
		c, direct := dialUDP(t, h.serve(Service{Protocol: UDP}, server)), dialUDP(t, server)
		buf := make([]byte, 10)
		message := []byte("x")
		exchange := func(c *net.UDPConn) func() {
			return func() {
				c.Write(message)
				c.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := c.Read(buf); err != nil {
					t.Fatal(err)
				}
			}
		}
		exchange(c)()
		base := testing.AllocsPerRun(200, exchange(direct)) // the server allocates
		if n := testing.AllocsPerRun(200, exchange(c)); n > base {
			t.Errorf("an exchange makes %v allocations, %v without Lictor", n, base)
		}
	})
}
