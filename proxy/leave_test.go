package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// leave makes addrs the endpoints of service s, and says why the others have left.
func (h *house) leave(why map[netip.AddrPort]lb.Reasons, addrs ...netip.AddrPort) {
	u := lb.Endpoints{Service: "s"}
	for _, a := range addrs {
		u.Endpoints = append(u.Endpoints, lb.Endpoint{ID: a.String(), Addr: a})
	}
	for a, reasons := range why {
		u.Left = append(u.Left, lb.Departure{Endpoint: lb.Endpoint{ID: a.String(), Addr: a}, Why: reasons})
	}
	h.balancer.OnUpdate([]lb.Endpoints{u})
}

type because = map[netip.AddrPort]lb.Reasons

// A watchedServer echoes and counts connections that were reset.
type watchedServer struct {
	addr   netip.AddrPort
	resets atomic.Int64
}

func watchResets(t *testing.T) *watchedServer {
	w := &watchedServer{}
	w.addr = tcpServer(t, func(c testConn) {
		buf := make([]byte, 1<<10)
		for {
			n, err := c.Read(buf)
			if isReset(err) {
				w.resets.Add(1)
			}
			if err != nil {
				return
			}
			c.Write(buf[:n])
		}
	})
	return w
}

// connected returns one connection to each of servers, in order, through service s.
func (h *house) connected(at netip.AddrPort, servers ...*watchedServer) []testConn {
	h.Helper()
	var conns []testConn
	for _, s := range servers {
		h.endpoints("s", s.addr)
		c := dialTCP(h.T, at)
		exchange(h.T, c, "hello")
		conns = append(conns, c)
	}
	var all []netip.AddrPort
	for _, s := range servers {
		all = append(all, s.addr)
	}
	h.endpoints("s", all...)
	return conns
}

// isCut waits until a connection to s is reset on both sides.
func (h *house) isCut(c testConn, s *watchedServer) {
	h.Helper()
	_, err := c.Read(make([]byte, 1))
	wantReset(h.T, err)
	eventually(h.T, equals("resets that the endpoint has seen", s.resets.Load, 1))
}

func TestLeavingEndpointsConnections(t *testing.T) {
	const cut = -1
	within := 50 * time.Millisecond
	for _, tt := range []struct {
		name    string
		policy  OnLeave
		why     lb.Reasons
		cut     bool
		control lb.Reasons // a reason that cuts the connections of another endpoint, if it is not zero
	}{
		{"finish by default", OnLeave{}, lb.Deregistered, false, 0},
		{"deregistered", OnLeave{Deregistered: cut}, lb.Deregistered, true, 0},
		{"critical", OnLeave{Critical: cut}, lb.Critical, true, 0},
		{"unmatched", OnLeave{Unmatched: cut}, lb.Unmatched, true, 0},
		{"another reason than deregistered", OnLeave{Critical: cut, Unmatched: cut}, lb.Deregistered, false,
			lb.Critical},
		{"another reason than critical", OnLeave{Deregistered: cut, Unmatched: cut}, lb.Critical, false, lb.Unmatched},
		{"another reason than unmatched", OnLeave{Deregistered: cut, Critical: cut}, lb.Unmatched, false,
			lb.Deregistered},
		{"after a while", OnLeave{Critical: within}, lb.Critical, true, 0},
		{"one of two that both end it", OnLeave{Deregistered: cut, Unmatched: within}, lb.Deregistered | lb.Unmatched,
			true, 0},
		{"one of two of which one does not", OnLeave{Deregistered: cut}, lb.Deregistered | lb.Unmatched, false,
			lb.Deregistered},
		{"unknown reason", OnLeave{cut, cut, cut}, 0, false, lb.Critical},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				a, stays, last := watchResets(t), watchResets(t), watchResets(t)
				conns := h.connected(h.serve(Service{OnLeave: tt.policy}), a, stays, last)
				h.leave(because{a.addr: tt.why}, stays.addr, last.addr)
				ended := int64(0)
				if tt.cut {
					h.isCut(conns[0], a)
					ended++
				}
				if tt.control != 0 {
					h.leave(because{last.addr: tt.control}, stays.addr)
					h.isCut(conns[2], last)
					ended++
				}
				if !tt.cut {
					exchange(t, conns[0], "still there?")
				}
				exchange(t, conns[1], "unharmed?")
				eventually(t, equals("connections cut", func() int64 { return h.stats().EndedLeft }, ended))
				eventually(t, equals("connections left", func() int64 { return h.stats().ConnectionsActive }, 3-ended))
			})
		})
	}
}

func TestEndpointThatIsBackInTimeKeepsItsConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		a, b := watchResets(t), watchResets(t)
		soon := 200 * time.Millisecond
		conns := h.connected(h.serve(Service{OnLeave: OnLeave{soon, soon, soon}}), a, b)
		h.leave(because{a.addr: lb.Critical, b.addr: lb.Critical})
		h.leave(nil, a.addr)
		h.isCut(conns[1], b) // b left as late as a, so a's connection would be cut by now
		exchange(t, conns[0], "still there?")
		h.leave(because{a.addr: lb.Deregistered})
		h.isCut(conns[0], a)
	})
}

// An endpoint with a new ID but the same address is the same process, so its connections stay.
func TestEndpointUnderAnotherNameKeepsItsConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		a, b := watchResets(t), watchResets(t)
		conns := h.connected(h.serve(Service{OnLeave: OnLeave{-1, -1, -1}}), a, b)
		renamed := lb.Endpoint{ID: "renamed", Addr: a.addr}
		left := []lb.Departure{{Endpoint: lb.Endpoint{ID: a.addr.String(), Addr: a.addr}, Why: lb.Deregistered}}
		h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{renamed}, Left: left}})
		h.leave(because{b.addr: lb.Critical}, a.addr)
		h.isCut(conns[1], b)
		exchange(t, conns[0], "still there?")
		h.leave(because{a.addr: lb.Critical})
		h.isCut(conns[0], a)
	})
}

// The reasons why an endpoint left may come in several steps, and the service's OnLeave may change. Both changes apply
// to open connections.
func TestReasonsAndPoliciesChangeInPlace(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		a, b := watchResets(t), watchResets(t)
		s := Service{Name: "s", Listen: listen(freePort(t, TCP)), OnLeave: OnLeave{Deregistered: -1}}
		conns := h.connected(h.serve(s), a, b)
		h.leave(because{a.addr: lb.Critical, b.addr: lb.Critical})
		h.leave(because{a.addr: lb.Deregistered})
		h.isCut(conns[0], a)
		exchange(t, conns[1], "still there?")
		s.OnLeave.Critical = time.Hour
		if err := h.Apply([]Service{s}); err != nil {
			t.Fatal(err)
		}
		exchange(t, conns[1], "and now?")
		s.OnLeave.Critical = -1
		if err := h.Apply([]Service{s}); err != nil {
			t.Fatal(err)
		}
		h.isCut(conns[1], b)
	})
}

// The connections of an endpoint are cut in portions, and none is forgotten.
func TestManyConnectionsOfAnEndpointAreCut(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 1
		a, b := watchResets(t), watchResets(t)
		at := h.serve(Service{OnLeave: OnLeave{Critical: -1}}, a.addr)
		var conns []testConn
		for range 700 {
			c := dialTCP(t, at)
			exchange(t, c, "hello")
			conns = append(conns, c)
		}
		h.endpoints("s", a.addr, b.addr)
		h.leave(because{a.addr: lb.Critical}, b.addr)
		for _, c := range conns {
			_, err := c.Read(make([]byte, 1))
			wantReset(t, err)
		}
		eventually(t, equals("resets that the endpoint has seen", a.resets.Load, 700))
		exchange(t, dialTCP(t, at), "hello")
		eventually(t, equals("endpoints in use", func() int { return endpointsInUse(h) }, 1))
	})
}

func TestAccessTellsThatTheEndpointLeft(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		records := make(chan AccessRecord, 10)
		h.options.Access = func(r AccessRecord) { records <- r }
		a := watchResets(t)
		conns := h.connected(h.serve(Service{OnLeave: OnLeave{Critical: -1}}), a)
		h.leave(because{a.addr: lb.Critical})
		h.isCut(conns[0], a)
		if r := <-records; r.Reason != ReasonEndpointLeft || r.Endpoint.Addr != a.addr || r.Up != 5 {
			t.Errorf("got %+v", r)
		}
	})
}

// Endpoints and clients come and go. No client stays with an endpoint that has left, and no connection remains.
func TestLeavesUnderLoad(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		var servers []*watchedServer
		for range 4 {
			servers = append(servers, watchResets(t))
		}
		at := h.serve(Service{OnLeave: OnLeave{Deregistered: -1, Critical: time.Millisecond}}, servers[0].addr)
		stop := make(chan struct{})
		var clients sync.WaitGroup
		var served, cut atomic.Int64
		for range 16 {
			clients.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					if err := chat(at, rand.IntN(20)); err != nil {
						cut.Add(1)
					} else {
						served.Add(1)
					}
				}
			})
		}
		reasons := []lb.Reasons{0, lb.Deregistered, lb.Critical, lb.Unmatched, lb.Deregistered | lb.Critical}
		for round := 0; round < 300 || served.Load() < 100 || cut.Load() < 10; round++ {
			var set []netip.AddrPort
			left := because{}
			for i, s := range servers {
				if i == round%len(servers) || rand.IntN(2) == 0 {
					set = append(set, s.addr)
				} else {
					left[s.addr] = reasons[rand.IntN(len(reasons))]
				}
			}
			h.leave(left, set...)
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
		}
		close(stop)
		clients.Wait()
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		eventually(t, equals("endpoints in use", func() int { return endpointsInUse(h) }, 0))
		t.Logf("%d clients served, %d cut", served.Load(), cut.Load())
	})
}

// chat connects, and sends and receives some words.
func chat(at netip.AddrPort, words int) error {
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	for i := range words {
		word := fmt.Sprintf("word %06d", i)
		if _, err := io.WriteString(c, word); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, make([]byte, len(word))); err != nil {
			return err
		}
	}
	return nil
}

func portableEndpointsInUse(h *house) int {
	cs := &h.engine.(*portable).byEndpoint
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.all)
}
