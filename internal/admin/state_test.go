package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/proxy"
)

// endpointsLike parses words such as "in/healthy" into endpoints with a state and a reason.
func endpointsLike(text string) (out []Endpoint) {
	for i, word := range strings.Fields(text) {
		state, reason, _ := strings.Cut(word, "/")
		out = append(out, Endpoint{ID: fmt.Sprint(i), State: state, Reason: reason})
	}
	return out
}

// A stateCase is a service with the state and the kinds of reasons that it should have.
type stateCase struct {
	name, endpoints string
	service         Service
	balanced        Balanced
	state           string
	kinds           string // of the reasons, in order
	says            string // part of the first reason's text
}

// casesOfEndpoints are those in which sources and endpoints decide.
func casesOfEndpoints() []stateCase {
	since := time.Unix(1000, 0)
	return []stateCase{
		{name: "all well", endpoints: "in/healthy in/slow_start in/troubled out/status out/standby", state: StateFine},
		{name: "an instance is critical in Consul", endpoints: "in/healthy out/status", state: StateFine},
		{name: "before the first answer", service: Service{Set: SetNone}, state: StateRefusing, kinds: "no_endpoint",
			says: "no endpoints are known yet"},
		{name: "Consul has never answered", service: Service{Set: SetNone, Problem: "refused", StaleSince: &since},
			state: StateRefusing, kinds: "no_endpoint", says: "no endpoints are known yet: refused"},
		{name: "an empty set", state: StateRefusing, kinds: "no_endpoint",
			says: "no endpoint is usable: there are none"},
		{name: "all out", endpoints: "out/ejected out/drained out/drained out/status", state: StateRefusing,
			kinds: "no_endpoint", says: "no endpoint is usable: 1 ejected, 1 status, 2 drained"},
		{name: "all fail, and ejections are ignored", endpoints: "in/ejected in/trial",
			service: Service{Panicking: true}, state: StateRefusing, kinds: "no_endpoint panic",
			says: "no endpoint is usable: 1 ejected, 1 trial"},
		{name: "most fail, and ejections are ignored", endpoints: "in/healthy in/ejected in/ejected",
			service: Service{Panicking: true}, state: StateDegraded, kinds: "panic",
			says: "2 of 3 endpoints are ejected, so many that ejections are ignored"},
		{name: "one is ejected", endpoints: "in/healthy out/ejected", state: StateDegraded, kinds: "ejected",
			says: "1 of 2 endpoints is ejected"},
		{name: "one fails its check", endpoints: "in/healthy out/check", state: StateDegraded, kinds: "ejected",
			says: "1 of 2 endpoints is out because of a failed check"},
		{name: "one is drained", endpoints: "in/healthy out/drained", state: StateDegraded, kinds: "drained"},
		{name: "one is held", endpoints: "in/healthy in/held", state: StateDegraded, kinds: "held"},
		{name: "stale", endpoints: "in/healthy", service: Service{Problem: "no answer", StaleSince: &since},
			state: StateDegraded, kinds: "stale", says: "its endpoints stay in use: no answer"},
		{name: "saved", endpoints: "in/saved", service: Service{Set: SetSaved}, state: StateDegraded,
			kinds: "unconfirmed"},
		{name: "hidden", endpoints: "in/healthy", service: Service{Problem: discovery.ErrNoToken.Error()},
			state: StateDegraded, kinds: "hidden"},
		{name: "a backup serves", endpoints: "out/standby in/healthy",
			service: Service{Sources: []Source{{Name: "first"}, {Name: "backup", Active: true, Detail: "all failed"}}},
			state:   StateDegraded, kinds: "failover", says: "served by backup: all failed"},
		{name: "the first source serves", endpoints: "in/healthy",
			service: Service{Sources: []Source{{Name: "first", Active: true}, {Name: "backup"}}}, state: StateFine},
	}
}

// casesOfLimits are those in which limits, queues and refused clients decide.
func casesOfLimits() []stateCase {
	since := time.Unix(1000, 0)
	return []stateCase{
		{name: "full", endpoints: "out/full out/full", state: StateRefusing, kinds: "full",
			says: "every usable endpoint has its maximum"},
		{name: "full, with a queue", endpoints: "out/full out/ejected", balanced: Balanced{Queue: 10, Waiting: 9},
			state: StateDegraded, kinds: "full ejected", says: "new clients wait"},
		{name: "full, with a full queue", endpoints: "out/full", balanced: Balanced{Queue: 10, Waiting: 10},
			state: StateRefusing, kinds: "full"},
		{name: "empty, and new clients wait", endpoints: "out/drained", service: Service{EmptyUntil: &since},
			balanced: Balanced{Queue: 10}, state: StateDegraded, kinds: "no_endpoint",
			says: "no endpoint is usable: 1 drained; new clients wait"},
		{name: "empty, and enough clients wait", service: Service{EmptyUntil: &since},
			balanced: Balanced{Queue: 10, Waiting: 10}, state: StateRefusing, kinds: "no_endpoint"},
		{name: "all ejected, with a queue", endpoints: "out/ejected", balanced: Balanced{Queue: 10},
			state: StateRefusing, kinds: "no_endpoint"},
		{name: "one is full", endpoints: "out/full in/healthy", state: StateFine},
		{name: "the service is full", endpoints: "in/healthy", balanced: Balanced{Full: true}, state: StateRefusing,
			kinds: "full", says: "the service has its maximum"},
		{name: "refused lately", endpoints: "in/healthy out/drained",
			service: Service{RefusedRateBy: map[string]float64{"unreached": 1, "retries_held": 2, "per_client": 5}},
			state:   StateRefusing, kinds: "retries failing drained",
			says: "clients were refused in the last 10 s: the retry budget was exhausted"},
		{name: "refused lately for the reason that still holds",
			service: Service{RefusedRateBy: map[string]float64{"no_endpoints": 1}},
			state:   StateRefusing, kinds: "no_endpoint", says: "no endpoint is usable"},
		{name: "refused lately for want of an endpoint, and now some are usable", endpoints: "in/healthy out/drained",
			service: Service{RefusedRateBy: map[string]float64{"no_endpoints": 1}},
			state:   StateRefusing, kinds: "no_endpoint drained", says: "clients were refused in the last 10 s"},
		{name: "TCP clients wait for descriptors", endpoints: "in/healthy",
			service: Service{Protocol: "tcp", Descriptors: Descriptors{Taken: 99, Ceiling: 100}},
			state:   StateDegraded, kinds: "descriptors", says: "new clients wait"},
		{name: "descriptors are left", endpoints: "in/healthy",
			service: Service{Protocol: "tcp", Descriptors: Descriptors{Taken: 98, Ceiling: 100}}, state: StateFine},
		{name: "denied lately, and answered since", endpoints: "in/healthy",
			service: Service{RefusedRateBy: map[string]float64{"denied": 1}}, state: StateRefusing, kinds: "denied",
			says: "clients were refused in the last 10 s: denied by the destination"},
		{name: "clients at their own limit", endpoints: "in/healthy",
			service: Service{RefusedRateBy: map[string]float64{"per_client": 5}}, state: StateFine},
		{name: "clients that may not come", endpoints: "in/healthy",
			service: Service{RefusedRateBy: map[string]float64{"not_allowed": 5}}, state: StateFine},
	}
}

// What endpoints deny is a reason until they answer again. The service refuses clients while some come and are denied.
func TestServiceStateIfDenied(t *testing.T) {
	first := time.Now().Add(-time.Minute)
	for _, rate := range []float64{0, 1} {
		s := Service{Set: SetFresh, Endpoints: endpointsLike("in/healthy in/healthy in/healthy")}
		s.Endpoints[0].Denied = &Unserved{Connections: 2, Since: first.Add(time.Second)}
		s.Endpoints[2].Denied = &Unserved{Connections: 3, Since: first}
		if rate > 0 {
			s.RefusedRateBy = map[string]float64{"denied": rate}
		}
		s.judge(&Balanced{})
		want := map[float64]string{0: StateDegraded, 1: StateRefusing}[rate]
		if s.State != want || len(s.Reasons) != 1 || s.Reasons[0].Kind != KindDenied ||
			s.Reasons[0].Text != "denied by the destination; connections: 5, at 2 of 3 endpoints" ||
			!s.Reasons[0].Since.Equal(first) {
			t.Errorf("got %s because of %+v, want %s", s.State, s.Reasons, want)
		}
	}
}

func TestServiceStates(t *testing.T) {
	for _, tt := range append(casesOfEndpoints(), casesOfLimits()...) {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.service
			s.Endpoints = endpointsLike(tt.endpoints)
			if s.Set == "" {
				s.Set = SetFresh
			}
			s.judge(&tt.balanced)
			var kinds []string
			for _, r := range s.Reasons {
				kinds = append(kinds, r.Kind)
			}
			if s.State != tt.state || !slices.Equal(kinds, strings.Fields(tt.kinds)) {
				t.Errorf("got %s because of %+v, want %s because of %s", s.State, s.Reasons, tt.state, tt.kinds)
			}
			if tt.says != "" && (len(s.Reasons) == 0 || !strings.Contains(s.Reasons[0].Text, tt.says)) {
				t.Errorf("got %+v, want %q first", s.Reasons, tt.says)
			}
		})
	}
}

// Clients that are refused make a service refusing, unless the reason lies with the client: its limit, its address, its
// PROXY header, its handshake, its identity or its ClientHello.
func TestEachRefusalIsAReason(t *testing.T) {
	for i := range len(proxy.RefusedBy{}) {
		refusal := proxy.Refusal(i)
		s := Service{Set: SetFresh, Endpoints: endpointsLike("in/healthy"),
			RefusedRateBy: map[string]float64{refusal.String(): 1}}
		s.judge(&Balanced{})
		own := slices.Contains([]proxy.Refusal{proxy.RefusedPerClient, proxy.RefusedPerIdentity,
			proxy.RefusedNotAllowed, proxy.RefusedProxyHeader, proxy.RefusedHandshake, proxy.RefusedNoRoute,
			proxy.RefusedIntention}, refusal)
		if refusing := s.State == StateRefusing; refusing == own {
			t.Errorf("%v: got %s because of %+v", refusal, s.State, s.Reasons)
		}
	}
}

func TestStateOfTheProcess(t *testing.T) {
	services := func(states ...string) (all []Service) {
		for i, state := range states {
			all = append(all, Service{Name: fmt.Sprintf("s%d", i), Set: SetFresh, State: state})
		}
		return all
	}
	failed := &Reload{Error: "no such file"}
	for _, tt := range []struct {
		name     string
		services []Service
		status   Status
		want     string
		reasons  []string
	}{
		{"no services", nil, Status{}, StateFine, nil},
		{"all fine", services(StateFine, StateFine), Status{}, StateFine, nil},
		{"one degraded", services(StateFine, StateDegraded), Status{}, StateDegraded, []string{"degraded: s1"}},
		{"many refuse", services(StateRefusing, StateRefusing, StateDegraded, StateRefusing, StateRefusing), Status{},
			StateRefusing, []string{"clients are refused by s0, s1, s3 and 1 more", "degraded: s2"}},
		{"pending", services(StateFine), Status{Pending: []Pending{{Argument: "engine"}, {Argument: "loops"}}},
			StateDegraded, []string{"changes wait for a restart or an upgrade: engine, loops"}},
		{"the last reload failed", services(StateFine), Status{LastReload: failed}, StateDegraded,
			[]string{"the last reload failed: no such file"}},
		{"the last reload succeeded", services(StateFine), Status{LastReload: &Reload{OK: true}}, StateFine, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := summary(tt.services)
			got.Pending, got.LastReload = tt.status.Pending, tt.status.LastReload
			got.judge(tt.services, nil)
			var reasons []string
			for _, r := range got.Reasons {
				reasons = append(reasons, r.Text)
			}
			if got.State != tt.want || !slices.Equal(reasons, tt.reasons) {
				t.Errorf("got %s because of %q, want %s because of %q", got.State, reasons, tt.want, tt.reasons)
			}
		})
	}
}

// The rates of refused clients are averages of the last ten samples, and cost nothing while no client is refused.
func TestRatesOfRefusedClients(t *testing.T) {
	h := newHistory()
	now := time.Unix(1000, 0)
	var a proxy.Activity
	look := func() {
		now = now.Add(time.Second)
		h.sample(now, func(f func(string, proxy.Activity)) { f("web", a) })
	}
	want := func(full, unreached float64) {
		t.Helper()
		got := h.refused("web")
		if got["full"] != full || got["unreached"] != unreached {
			t.Errorf("got %v, want full %v and unreached %v", got, full, unreached)
		}
		if free := full+unreached == 0; free != (got == nil) || free != (h.services["web"].refused == nil) {
			t.Errorf("got %v, kept %v", got, h.services["web"].refused)
		}
	}
	a.RefusedBy[proxy.RefusedFull] = 1000 // before the first look
	look()
	want(0, 0)
	a.RefusedBy[proxy.RefusedFull] += 6
	look()
	want(6, 0)
	a.RefusedBy[proxy.RefusedUnreached] += 4
	look()
	want(3, 2)
	if got := h.of("web"); got[0].Refused != 6 || got[1].Refused != 4 {
		t.Errorf("got the samples %+v, want 6 and 4 refused", got)
	}
	for range refusedSamples - 2 {
		look()
	}
	want(0.6, 0.4)
	look()
	want(0, 0.4)
	look()
	want(0, 0)
	a.RefusedBy[proxy.RefusedFull] = 0 // the service was replaced
	look()
	want(0, 0)
}
