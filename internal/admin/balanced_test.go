package admin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// What an endpoint has not served reaches the API, and is absent if there is nothing.
func TestWhatAnEndpointHasNotServed(t *testing.T) {
	now := time.Now()
	u := lb.Unserved{Connections: 2, Since: now, Last: now.Add(time.Second), Why: "no"}
	e := balancedEndpoint(now, &lb.EndpointSnapshot{Denied: u}, false)
	s := Service{Endpoints: []Endpoint{{}, {ID: "other"}}}
	s.balanced(&Balanced{Endpoints: []Endpoint{e}})
	if d := s.Endpoints[0].Denied; d == nil || *d != Unserved(u) || s.Endpoints[0].Unanswered != nil ||
		s.Endpoints[1].Denied != nil {
		t.Errorf("got %+v", s.Endpoints)
	}
	e = balancedEndpoint(now, &lb.EndpointSnapshot{Unanswered: u}, false)
	if e.Unanswered == nil || *e.Unanswered != Unserved(u) || e.Denied != nil {
		t.Errorf("got %+v", e)
	}
}

func TestBalancedSaysWhatTheBalancerDoes(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tt := range []struct {
		name string
		s    lb.EndpointSnapshot
		all  lb.ServiceSnapshot
		want string
	}{
		{"in", lb.EndpointSnapshot{Dials: 4, DialTime: 6 * time.Second}, lb.ServiceSnapshot{}, "  "},
		{"ejected", lb.EndpointSnapshot{State: lb.StateEjected, Cause: lb.Refused, Fails: 3, TryIn: 10 * time.Second},
			lb.ServiceSnapshot{}, "out ejected refused, 3 in a row until 1010"},
		{"due", lb.EndpointSnapshot{State: lb.StateEjected, Cause: lb.Reset, Fails: 1}, lb.ServiceSnapshot{},
			"out ejected reset, 1 in a row; the next client tries it"},
		{"checked", lb.EndpointSnapshot{State: lb.StateEjected, Cause: lb.Unreachable, Fails: 4, TryIn: time.Second,
			Checked: true}, lb.ServiceSnapshot{}, "out ejected unreachable, 4 in a row; out until it answers a check"},
		{"trial", lb.EndpointSnapshot{State: lb.StateTrial, Cause: lb.Unfit, Fails: 1}, lb.ServiceSnapshot{},
			"out trial unfit, 1 in a row"},
		{"full", lb.EndpointSnapshot{State: lb.StateFull, Open: 9}, lb.ServiceSnapshot{},
			"out full open connections: 9, as many as it may have"},
		{"slow", lb.EndpointSnapshot{State: lb.StateSlow, Share: 0.25}, lb.ServiceSnapshot{},
			"in slow_start at 25% of its share"},
		{"troubled", lb.EndpointSnapshot{State: lb.StateTroubled, Fails: 1}, lb.ServiceSnapshot{},
			"in troubled failures in a row: 1"},
		{"wrong server", lb.EndpointSnapshot{State: lb.StateEjected, Cause: lb.Handshake, Fails: 2, Why: "is web2"},
			lb.ServiceSnapshot{}, "out ejected handshake, 2 in a row; the next client tries it; " +
				"the last TLS handshake failed: is web2"},
		{"wrong server on trial", lb.EndpointSnapshot{State: lb.StateTrial, Cause: lb.Handshake, Fails: 2, Why: "no"},
			lb.ServiceSnapshot{}, "out trial handshake, 2 in a row; the last TLS handshake failed: no"},
		{"wrong server, not ejected", lb.EndpointSnapshot{State: lb.StateTroubled, Fails: 1, Why: "no"},
			lb.ServiceSnapshot{}, "in troubled failures in a row: 1; the last TLS handshake failed: no"},
		{"full and failed", lb.EndpointSnapshot{State: lb.StateFull, Open: 9, Why: "no"}, lb.ServiceSnapshot{},
			"out full open connections: 9, as many as it may have"},
		{"wrong server, panic", lb.EndpointSnapshot{State: lb.StateEjected, Cause: lb.Handshake, Fails: 2, Why: "no"},
			lb.ServiceSnapshot{Panicking: true}, "in ejected handshake, 2 in a row; ignored, because too many " +
				"endpoints are ejected; the last TLS handshake failed: no"},
		{"panic", lb.EndpointSnapshot{State: lb.StateEjected, Cause: lb.Refused, Fails: 3, TryIn: time.Second},
			lb.ServiceSnapshot{Panicking: true},
			"in ejected refused, 3 in a row; ignored, because too many endpoints are ejected"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.all.Service, tt.all.Endpoints = "web", []lb.EndpointSnapshot{tt.s}
			e := balancedOf(now, []lb.ServiceSnapshot{tt.all}, nil)["web"].Endpoints[0]
			got := strings.Join([]string{e.State, e.Reason, e.Detail}, " ")
			if e.Until != nil {
				got += fmt.Sprint(" until ", e.Until.Unix())
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			want := EndpointCounters{Active: tt.s.Open, Dials: tt.s.Dials, DialSeconds: tt.s.DialTime.Seconds()}
			if *e.Counters != want {
				t.Errorf("got %+v, want %+v", *e.Counters, want)
			}
		})
	}
}

// fakeNames knows one host name, and its lookups fail.
type fakeNames struct{}

func (fakeNames) Name(host string) (lb.NameSnapshot, bool) {
	if host != "db.test" {
		return lb.NameSnapshot{}, false
	}
	return lb.NameSnapshot{Host: host, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("::1")},
		Age: 90 * time.Second, Err: "server misbehaving"}, true
}

func (fakeNames) Lookups() lb.Lookups { return lb.Lookups{Found: 21, Denied: 22, Failed: 23} }
func (fakeNames) Stale() int          { return 24 }

// An endpoint with a host name shows the name's addresses, and why lookups fail.
func TestBalancedSaysWhatIsKnownOfNames(t *testing.T) {
	all := []lb.ServiceSnapshot{{Service: "web", Endpoints: []lb.EndpointSnapshot{
		{Endpoint: lb.Endpoint{ID: "a", Host: "db.test"}}, {Endpoint: lb.Endpoint{ID: "b", Host: "unknown.test"}},
		{Endpoint: lb.Endpoint{ID: "c"}}}}}
	got := balancedOf(time.Unix(1000, 0), all, fakeNames{})["web"].Endpoints
	n := got[0].Name
	if n == nil || !slices.Equal(n.Addresses, []string{"10.0.0.7", "::1"}) || n.Problem != "server misbehaving" ||
		n.FoundAt == nil || n.FoundAt.Unix() != 910 {
		t.Errorf("got %+v", n)
	}
	if got[1].Name != nil || got[2].Name != nil {
		t.Errorf("got %+v and %+v of names that are not known", got[1].Name, got[2].Name)
	}
}
