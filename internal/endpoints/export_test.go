package endpoints

import (
	"maps"
	"slices"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

// Another process continues with the exported sets and drains. It ignores drained endpoints of services that it does
// not know.
func TestSetsGoOverToAnotherProcess(t *testing.T) {
	web := lb.Endpoints{Service: "web", Endpoints: endpointsAt(t, "a=10.0.0.1:80*1 b=10.0.0.2:80*1")}
	first := NewSets(lb.NewRoundRobin(), NewEvents(), nil)
	first.OnUpdate([]lb.Endpoints{web})
	mustDrain(t, first, "web", "a")
	mustDrain(t, first, "web", "b")
	mustUndrain(t, first, "web", "a")
	sets, drains := first.Export()
	drains = append(drains, ExportedDrain{Service: "gone", Endpoint: "x"})

	balancer := lb.NewRoundRobin()
	second := NewSets(balancer, NewEvents(), nil)
	second.Import(sets, drains)
	served := func() []string {
		ids := map[string]bool{}
		for _, e := range balancer.Snapshot()[0].Endpoints {
			ids[e.ID] = true
		}
		return slices.Sorted(maps.Keys(ids))
	}
	if got := served(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("served: %v, want a, for b is drained", got)
	}
	second.OnUpdate([]lb.Endpoints{web})
	if got := served(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("served after an update: %v", got)
	}
	mustUndrain(t, second, "web", "b")
	if got := served(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("served: %v, want both", got)
	}
}
