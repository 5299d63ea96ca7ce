package endpoints

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

// endpointsAt parses words such as "a=10.0.0.1:80*3" into endpoints with an ID, an address and a weight. A slash
// and a server name may follow, then "@" and an identity.
func endpointsAt(t *testing.T, text string) (set []lb.Endpoint) {
	t.Helper()
	for _, word := range strings.Fields(text) {
		id, rest, _ := strings.Cut(word, "=")
		addr, weight, _ := strings.Cut(rest, "*")
		weight, identity, _ := strings.Cut(weight, "@")
		weight, name, _ := strings.Cut(weight, "/")
		e := lb.Endpoint{ID: id, Addr: netip.MustParseAddrPort(addr), ServerName: name, Identity: identity}
		if _, err := fmt.Sscan(weight, &e.Weight); err != nil {
			t.Fatal(err)
		}
		set = append(set, e)
	}
	return set
}

func TestWhatChangesIsAnEvent(t *testing.T) {
	tests := []struct {
		name, before, now string
		want              []string
	}{
		{"first endpoints, in any order", "", "b=10.0.0.2:80*1 a=10.0.0.1:80*1", []string{
			"joined a: a at 10.0.0.1:80", "joined b: b at 10.0.0.2:80",
		}},
		{"the same in another order", "a=10.0.0.1:80*1 b=10.0.0.2:80*1", "b=10.0.0.2:80*1 a=10.0.0.1:80*1", nil},
		{"one leaves", "a=10.0.0.1:80*1 b=10.0.0.2:80*1", "b=10.0.0.2:80*1", []string{"left a: a at 10.0.0.1:80"}},
		{"one moves", "a=10.0.0.1:80*1", "a=10.0.0.9:81*1", []string{
			"changed a: a moved from 10.0.0.1:80 to 10.0.0.9:81",
		}},
		{"another weight", "a=10.0.0.1:80*1", "a=10.0.0.1:80*5", []string{"changed a: a weight 5, was 1"}},
		{"a name", "a=10.0.0.1:80*1", "a=10.0.0.1:80*1/x.test", []string{"changed a: a server name x.test, was none"}},
		{"an identity", "a=10.0.0.1:80*1", "a=10.0.0.1:80*1@/svc/x", []string{
			"changed a: a identity /svc/x, was none"}},
		{"no name any more", "a=10.0.0.1:80*1/x.test", "a=10.0.0.1:80*1", []string{
			"changed a: a server name none, was x.test",
		}},
		{"one for another", "a=10.0.0.1:80*1", "b=10.0.0.1:80*1", []string{
			"joined b: b at 10.0.0.1:80", "left a: a at 10.0.0.1:80",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			events := NewEvents()
			s := NewSets(lb.NewRoundRobin(), events, nil)
			s.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: endpointsAt(t, tt.before)}})
			_, before, _ := events.After(0, "", 0)
			was, _ := s.View("web")
			s.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: endpointsAt(t, tt.now)}})
			is, _ := s.View("web")
			added, _, _ := events.After(before, "web", MaxEvents)
			var got []string
			for _, e := range added {
				got = append(got, fmt.Sprintf("%s %s: %s", e.Kind, e.Endpoint, e.Text))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if different := !is.Changed.Equal(was.Changed); different != (tt.want != nil) {
				t.Errorf("changed at %v, before at %v", is.Changed, was.Changed)
			}
		})
	}
}

// An endpoint that stays keeps the time at which it joined. A source may pass the same slice again.
func TestWhatStaysKeepsItsTime(t *testing.T) {
	s := NewSets(lb.NewRoundRobin(), NewEvents(), nil)
	set := endpointsAt(t, "a=10.0.0.1:80*1 b=10.0.0.2:80*1")
	s.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: set}})
	before, _ := s.View("web")
	set[1].Weight = 7
	if v, _ := s.View("web"); v.Endpoints[1].Weight != 1 {
		t.Error("the set is the source's own slice")
	}
	s.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: set}})
	now, _ := s.View("web")
	if !now.Endpoints[0].Joined.Equal(before.Endpoints[0].Joined) {
		t.Error("a has not joined anew")
	}
	if now.Endpoints[1].Weight != 7 || !now.Endpoints[1].Joined.After(before.Endpoints[1].Joined) {
		t.Errorf("got %+v, want b as it is since the update", now.Endpoints[1])
	}
}

// A drained endpoint that has left its set is shown, and is still drained when it returns.
func TestADrainedEndpointLeavesAndReturns(t *testing.T) {
	b := lb.NewRoundRobin()
	s := NewSets(b, NewEvents(), nil)
	with := func(set string) {
		s.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: endpointsAt(t, set)}})
	}
	with("b=10.0.0.2:80*1 a=10.0.0.1:80*1")
	for range 2 { // the second Drain changes nothing
		mustDrain(t, s, "web", "a")
	}
	with("b=10.0.0.2:80*1")
	v, _ := s.View("web")
	if len(v.Endpoints) != 2 || !v.Endpoints[0].Joined.IsZero() || v.Endpoints[0].Drained.IsZero() {
		t.Errorf("got %+v, want a drained and gone, and b", v.Endpoints)
	}
	with("a=10.0.0.1:80*1")
	serves(t, b, "web", lb.ErrMissingEndpoints.Error())
	mustUndrain(t, s, "web", "a")
	serves(t, b, "web", "a")
}

func TestChangeOfTheZone(t *testing.T) {
	for _, tt := range []struct {
		before, now lb.Endpoint
		want        string
	}{
		{lb.Endpoint{Zone: "a", Near: true}, lb.Endpoint{Zone: "b"}, " zone b, was a no longer near"},
		{lb.Endpoint{}, lb.Endpoint{Zone: "b", Near: true}, " zone b, was not known now near"},
		{lb.Endpoint{Zone: "b", Near: true}, lb.Endpoint{Zone: "b"}, " no longer near"},
	} {
		if got := difference(tt.before, tt.now); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
