package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// serveAll applies services that listen on 127.0.0.1:0, and returns their addresses by name.
func (h *house) serveAll(services ...Service) map[string]netip.AddrPort {
	h.Helper()
	if h.Proxier == nil {
		h.start()
	}
	for i := range services {
		services[i].Listen, services[i].ConnectTimeout = []netip.AddrPort{loopback}, 20*time.Second
	}
	if err := h.Apply(services); err != nil {
		h.Fatal(err)
	}
	addrs := map[string]netip.AddrPort{}
	for _, l := range h.Listeners() {
		addrs[l.Service] = l.Addr.AddrPort
	}
	return addrs
}

// of returns the counters of a service.
func (h *house) of(service string) Stats {
	all := h.Snapshot()
	return all[slices.IndexFunc(all, func(s Stats) bool { return s.Service == service })]
}

// waits returns a condition for eventually: clients of a service have waited for descriptors.
func (h *house) waits(service string) func() error {
	return equals("clients had to wait", func() bool { return h.of(service).DescriptorWaits > 0 }, true)
}

// A udpFlood makes new clients one after the other. Each client of the flood sends a single datagram.
type udpFlood struct {
	sent    atomic.Int64
	stop    chan struct{}
	running sync.WaitGroup
}

func newFlood(t *testing.T, addr netip.AddrPort) *udpFlood {
	f := &udpFlood{stop: make(chan struct{})}
	f.running.Go(func() {
		for {
			select {
			case <-f.stop:
				return
			default:
			}
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
			if err != nil {
				t.Error(err)
				return
			}
			c.Write([]byte("flood"))
			c.Close()
			f.sent.Add(1)
		}
	})
	return f
}

func (f *udpFlood) end() {
	close(f.stop)
	f.running.Wait()
}

// silent returns a UDP endpoint that does not answer.
func silent(t *testing.T) netip.AddrPort { return udpServer(t, func([]byte) []byte { return nil }) }

// A flood of new UDP clients of one service takes nothing from other services. Each UDP service has its floor, and TCP
// services have an equal part.
func TestUDPFloodTakesNothingFromOtherServices(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 2
		h.options.MaxDescriptors = 300
		h.start()
		h.endpoints("flood", silent(t))
		h.endpoints("tcp", tcpServer(t, echo))
		h.endpoints("udp", udpServer(t, says("udp")))
		at := h.serveAll(Service{Name: "flood", Protocol: UDP}, Service{Name: "tcp"},
			Service{Name: "udp", Protocol: UDP})
		flood := newFlood(t, at["flood"])
		eventually(t, func() error {
			if h.of("flood").SessionsEvicted == 0 {
				return errPending
			}
			return nil
		})
		taken, _ := h.Proxier.services["udp"].share.load()
		_, floor := h.Proxier.services["udp"].share.load()
		if taken != 0 || floor < 20 {
			t.Fatalf("the other UDP service has %d descriptors and a floor of %d, which proves nothing", taken, floor)
		}
		var clients []*net.UDPConn
		for range floor {
			clients = append(clients, dialUDP(t, at["udp"]))
			if got := askOnce(t, clients[len(clients)-1], "x"); got != "udp:x" {
				t.Fatalf("got %q, want udp:x", got)
			}
		}
		// One less, because the last client may wait for a moment while another loop also looks for descriptors.
		for range h.budget.equal.Load()/pairDescriptors - 1 {
			exchange(t, dialTCP(t, at["tcp"]), "hello")
		}
		for _, c := range clients { // their sessions still exist
			askOnce(t, c, "y")
		}
		flood.end()
		if s := h.of("udp"); s.Sessions != floor || s.SessionsEvicted != 0 || s.Refused != 0 {
			t.Errorf("got %d sessions, %d evicted, %d refused, want %d, 0 and 0",
				s.Sessions, s.SessionsEvicted, s.Refused, floor)
		}
		if s := h.of("tcp"); s.DescriptorWaits != 0 {
			t.Errorf("TCP clients had to wait %d times", s.DescriptorWaits)
		}
	})
}

// Of all services above their floor, the session that has been idle longest ends.
func TestUDPSessionIdleLongestOfAllServicesMakesRoom(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 2
		h.options.MaxDescriptors = 100
		h.start()
		names := []string{"new", "old", "young"}
		var services []Service
		for _, name := range names {
			h.endpoints(name, udpServer(t, echoUDP))
			services = append(services, Service{Name: name, Protocol: UDP})
		}
		at := h.serveAll(services...)
		_, floor := h.Proxier.services["old"].share.load()
		begin := func(name string, n int64) (clients []*net.UDPConn) {
			for range n {
				clients = append(clients, dialUDP(t, at[name]))
				askOnce(t, clients[len(clients)-1], "x")
			}
			return clients
		}
		room := h.room() - 3*floor - spare(h)
		begin("old", floor+room/2)
		begin("young", floor+room-room/2)
		begin("new", floor)
		for _, name := range names {
			if s := h.of(name); s.SessionsEvicted != 0 {
				t.Fatalf("%s has lost %d sessions already", name, s.SessionsEvicted)
			}
		}
		h.budget.advances.Store(room) // with too few, younger sessions of the same loop end instead
		begin("new", room/2)
		ended := func() int64 { return h.of("old").SessionsEvicted }
		eventually(t, equals("sessions idle longest that have ended", ended, room/2))
		begin("new", 1) // the old service is at its floor
		if n := h.of("old").SessionsActive; n != floor {
			t.Errorf("the old service has %d sessions, want %d", n, floor)
		}
		evicted := func() int64 { return h.of("young").SessionsEvicted }
		eventually(t, equals("young sessions that have ended", evicted, 1))
	})
}

// spare returns what is set aside for new listeners.
func spare(h *house) int64 {
	taken, floor := h.budget.listeners.load()
	return floor - taken
}

// A TCP service takes no more than its ceiling, and the log says that the ceiling is the reason.
func TestTCPServiceAtItsCeilingLeavesOthersTheirFloors(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 2
		h.options.MaxDescriptors = 100
		log := &testproc.Log{}
		h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
		h.start()
		h.endpoints("greedy", tcpServer(t, echo))
		h.endpoints("tcp", tcpServer(t, echo))
		h.endpoints("udp", udpServer(t, echoUDP))
		at := h.serveAll(Service{Name: "greedy"}, Service{Name: "tcp"}, Service{Name: "udp", Protocol: UDP})
		var greedy []testConn
		for range 100 {
			greedy = append(greedy, dialTCP(t, at["greedy"]))
		}
		eventually(t, h.waits("greedy"))
		// A wait is counted a moment before it begins.
		eventually(t, equals("a listener waits", h.budget.waiting.Load, true))
		for range 2 { // a listener that waits for descriptors is not stuck
			if errs := h.engine.stuck(0); errs != nil {
				t.Errorf("while a listener waits for descriptors: got %v", errs)
			}
		}
		ceiling := h.budget.ceiling.Load() / pairDescriptors
		eventually(t, equals("connections", func() int64 { return h.of("greedy").ConnectionsActive }, ceiling))
		_, floor := h.Proxier.services["tcp"].share.load()
		for range floor / pairDescriptors {
			exchange(t, dialTCP(t, at["tcp"]), "hello")
		}
		for range 2 * floor { // its own sessions end for new ones
			query(t, dialUDP(t, at["udp"]), "x")
		}
		if s := h.of("udp"); s.SessionsActive < floor {
			t.Errorf("got %d UDP sessions, want %d", s.SessionsActive, floor)
		}
		if n := h.of("greedy").ConnectionsActive; n != ceiling {
			t.Errorf("got %d connections, want %d as before", n, ceiling)
		}
		shown, all := h.of("greedy").Descriptors, h.budget.ceiling.Load()
		if want := (Descriptors{Taken: 2 * ceiling, Floor: floor, Ceiling: all}); shown != want {
			t.Errorf("got %+v, want %+v", shown, want)
		}
		want := fmt.Sprint("service=greedy taken=", 2*ceiling, " ceiling=", h.budget.ceiling.Load())
		if !strings.Contains(log.String(), want) {
			t.Errorf("got %q, want a line with %q", log, want)
		}
		for _, c := range greedy { // all are served in the end
			exchange(t, c, "hello")
			c.Close()
		}
	})
}

// If the services of two proxiers lead to each other, one client takes everything that the service may have on both,
// and no more.
func TestTCPLoopOverTwoProxiersLeavesOthersTheirFloors(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.MaxDescriptors = 100
		o := &house{T: t, balancer: h.balancer, options: h.options}
		o.start()
		defer o.Proxier.Close()
		h.start()
		h.endpoints("tcp", tcpServer(t, echo))
		services := func() []Service { return []Service{{Name: "here"}, {Name: "there"}, {Name: "tcp"}} }
		here, there := h.serveAll(services()...), o.serveAll(services()...)
		h.endpoints("here", there["there"])
		o.endpoints("there", here["here"])
		c := dialTCP(t, here["here"])
		c.Write([]byte("round and round"))
		eventually(t, equals("clients had to wait", func() bool {
			return h.of("here").DescriptorWaits+o.of("there").DescriptorWaits > 0
		}, true))
		for _, at := range []netip.AddrPort{here["tcp"], there["tcp"]} {
			exchange(t, dialTCP(t, at), "hello")
		}
		c.Close()
	})
}

// A service that a reload adds gets its floor although another service has everything. UDP sessions end for it at once,
// and the descriptors that TCP connections free go there first.
func TestAddedServiceGetsItsFloor(t *testing.T) {
	for _, protocol := range []Protocol{TCP, UDP} {
		t.Run(protocol.String(), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				h.options.Loops = 2
				h.options.MaxDescriptors = 100
				h.start()
				h.endpoints("tcp", tcpServer(t, echo))
				h.endpoints("first", tcpServer(t, echo))
				if protocol == UDP {
					h.endpoints("first", udpServer(t, echoUDP))
				}
				first := Service{Name: "first", Protocol: protocol}
				at := h.serveAll(first)
				var clients []testConn
				for n := h.room(); n > 0; n-- {
					if protocol == UDP {
						query(t, dialUDP(t, at["first"]), "x")
					} else {
						clients = append(clients, dialTCP(t, at["first"]))
					}
				}
				if protocol == TCP {
					eventually(t, h.waits("first"))
				}
				at = h.serveAll(first, Service{Name: "tcp"})
				floor := h.Proxier.services["tcp"].share.goal
				before := h.of("first").Descriptors.Taken // some of its connections are still being dialled
				for range floor / pairDescriptors {
					c := dialTCP(t, at["tcp"])
					if protocol == TCP { // two, because the first freed pair may go to a waiting client
						for range 2 {
							exchange(t, clients[0], "hello")
							clients[0].Close()
							clients = clients[1:]
						}
					}
					exchange(t, c, "hello")
				}
				if after := h.of("first").Descriptors.Taken; after > before {
					t.Errorf("the first service has %d descriptors, it had %d", after, before)
				}
			})
		})
	}
}

// A listener moves to another service while its sessions have all descriptors. Sessions of the former service end for
// new ones, and all descriptors are given back.
func TestUDPDescriptorsOfAListenerThatChangesHands(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 2
		h.options.MaxDescriptors = 60
		h.start()
		at := freePort(t, UDP)
		before := Service{Name: "before", Protocol: UDP, Listen: listen(at)}
		after := Service{Name: "after", Protocol: UDP, Listen: listen(at)}
		h.endpoints("before", udpServer(t, says("before")))
		h.endpoints("after", udpServer(t, says("after")))
		h.endpoints("other", udpServer(t, says("other")))
		other := Service{Name: "other", Protocol: UDP, Listen: listen(freePort(t, UDP))}
		for range 3 {
			if err := h.Apply([]Service{before, other}); err != nil {
				t.Fatal(err)
			}
			for range h.room() {
				query(t, dialUDP(t, at), "x")
			}
			if err := h.Apply([]Service{after, other}); err != nil {
				t.Fatal(err)
			}
			for range h.room() {
				if got := query(t, dialUDP(t, at), "x"); got != "after:x" {
					t.Fatalf("got %q, want after:x", got)
				}
				query(t, dialUDP(t, other.Listen[0]), "x")
			}
		}
		for _, s := range h.Snapshot() {
			if s.Refused > 0 {
				t.Errorf("%s: %d clients were refused", s.Service, s.Refused)
			}
		}
		h.Apply(nil)
		eventually(t, equals("descriptors taken", h.budget.taken, 0))
	})
}

// Sessions that are being handed over do not end for other clients.
func TestNothingMakesRoomWhileItStands(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 2
		h.options.MaxDescriptors = 60
		h.start()
		h.endpoints("udp", udpServer(t, says("udp")))
		h.endpoints("tcp", tcpServer(t, echo))
		at := h.serveAll(Service{Name: "tcp"}, Service{Name: "udp", Protocol: UDP})
		for range h.room() {
			query(t, dialUDP(t, at["udp"]), "x")
		}
		suspended := len(h.Suspend())
		active := h.of("udp").SessionsActive // not before: the last evicted session may still have been ending
		if int64(suspended) != active {
			t.Errorf("%d sessions, want %d", suspended, active)
		}
		_, floor := h.Proxier.services["tcp"].share.load()
		var clients []testConn
		for range floor/pairDescriptors + 1 { // below an equal part
			clients = append(clients, dialTCP(t, at["tcp"]))
		}
		eventually(t, h.waits("tcp"))
		if n := h.of("udp").SessionsActive; n != active {
			t.Errorf("%d sessions are left, want %d", n, active)
		}
		h.Resume()
		for _, c := range clients {
			exchange(t, c, "hello")
		}
	})
}
