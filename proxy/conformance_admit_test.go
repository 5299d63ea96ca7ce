package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

var errBarred = errors.New("barred by the test")

// A gate refuses addresses of a host name that have this port.
type gate struct{ port atomic.Uint32 }

func (g *gate) admit(_ string, _ Protocol, _ lb.Endpoint, addr netip.AddrPort) error {
	if uint32(addr.Port()) == g.port.Load() {
		return errBarred
	}
	return nil
}

// byName returns an endpoint with the host name localhost.
func byName(port uint16) lb.Endpoint {
	return lb.Endpoint{ID: "name", Host: "localhost", Addr: netip.AddrPortFrom(netip.Addr{}, port)}
}

// wantBlameless checks that the endpoint with the host name has no failures.
func (h *house) wantBlameless() {
	h.Helper()
	for _, e := range h.balancer.Snapshot()[0].Endpoints {
		if e.ID == "name" && (e.State != lb.StateIn || e.Failures > 0 || e.Fails > 0) {
			h.Errorf("the endpoint is %v with %d failures, want none", e.State, e.Failures)
		}
	}
	if by := h.stats().DialsFailedBy; by[0] == 0 || by[0] != h.stats().DialsFailed {
		h.Errorf("failed dials by cause: %v, want only local ones", by)
	}
}

func TestTCPDoesNotDialABarredAddress(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		var reached atomic.Int64
		barred := tcpServer(t, func(testConn) { reached.Add(1) })
		other := tcpServer(t, named("other"))
		g := &gate{}
		g.port.Store(uint32(barred.Port()))
		h.options.Admit = g.admit
		addr := h.serve(Service{})
		both := []lb.Endpoint{byName(barred.Port()), {ID: "other", Addr: other}}
		h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: both}})
		for range 6 {
			if got := ask(t, addr); got != "other" {
				t.Errorf("got %q, want other", got)
			}
		}
		if n := reached.Load(); n > 0 {
			t.Errorf("the barred address was dialled %d times", n)
		}
		h.wantBlameless()

		h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{byName(other.Port())}}})
		if got := ask(t, addr); got != "other" {
			t.Errorf("by a name that is not barred: got %q, want other", got)
		}
		h.endpoints("s", barred) // without a host name, admit is not called
		ask(t, addr)
		if reached.Load() != 1 {
			t.Error("an endpoint with an address was barred")
		}
	})
}

// If some addresses of a name are barred, the others are used.
func TestSomeAddressesOfANameAreBarred(t *testing.T) {
	m := &lb.Member{Endpoint: byName(80)}
	one, two := netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	s := &service{}
	spec, src := &Service{Name: "s"}, netip.Addr{}
	s.spec.Store(spec)
	all := func() []netip.Addr { return []netip.Addr{one, two} }
	if got, err := s.admitted(spec, m, src, all()); err != nil || !slices.Equal(got, all()) {
		t.Errorf("without admit: got %v, %v", got, err)
	}
	var bar []netip.AddrPort
	s.admit = func(name string, p Protocol, e lb.Endpoint, addr netip.AddrPort) error {
		if name != "s" || p != TCP || e != m.Endpoint {
			t.Errorf("admit was called with %s, %s, %v", name, p, e)
		}
		if slices.Contains(bar, addr) {
			return errBarred
		}
		return nil
	}
	bar = append(bar, netip.MustParseAddrPort("192.0.2.1:80"))
	if got, err := s.admitted(spec, m, src, all()); err != nil || !slices.Equal(got, []netip.Addr{two}) {
		t.Errorf("one is barred: got %v, %v", got, err)
	}
	bar = append(bar, netip.MustParseAddrPort("[2001:db8::1]:80"))
	got, err := s.admitted(spec, m, src, all())
	if len(got) > 0 || !errors.Is(err, errBarred) || err.Error() != "dial tcp localhost:80: barred by the test" {
		t.Errorf("both are barred: got %v, %v", got, err)
	}
	if _, local := causeOf(err); !local {
		t.Error("a barred address counts against the endpoint")
	}
}

func TestUDPDoesNotDialABarredAddress(t *testing.T) {
	for _, responses := range []int{0, -1} {
		forEachEngine(t, func(t *testing.T, h *house) {
			received := make(chan [2]string, 1000)
			into := func(name string) func([]byte) []byte {
				return func(b []byte) []byte { received <- [2]string{name, string(b)}; return nil }
			}
			barred, other := udpServer(t, into("barred")), udpServer(t, into("other"))
			g := &gate{}
			h.options.Admit = g.admit
			addr := h.serve(Service{Protocol: UDP, Responses: responses})
			set := lb.Endpoints{Service: "s", Endpoints: []lb.Endpoint{byName(barred.Port())}}
			h.balancer.OnUpdate([]lb.Endpoints{set})
			send := func(text, want string) { // each time from a new client, and again if a datagram seems lost
				t.Helper()
				eventually(t, func() error {
					c := dialUDP(t, addr)
					defer c.Close()
					c.Write([]byte(text))
					for patience := short(t); ; {
						select {
						case got := <-received:
							if got[1] != text { // of an earlier client
								continue
							}
							if got[0] != want {
								t.Fatalf("%s went to %s, want %s", text, got[0], want)
							}
							return nil
						case <-patience.Done():
							return errPending
						}
					}
				})
			}
			send("before", "barred")
			g.port.Store(uint32(barred.Port())) // from here on the port is barred
			set.Endpoints = append(set.Endpoints, lb.Endpoint{ID: "other", Addr: other})
			h.balancer.OnUpdate([]lb.Endpoints{set})
			for i := range 6 {
				send(fmt.Sprint("after ", i), "other")
			}
			h.wantBlameless()
		})
	}
}
