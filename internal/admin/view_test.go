package admin

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/lb"
)

func TestEndpointsOfAView(t *testing.T) {
	joined, drained, forbidden := time.Unix(1, 0), time.Unix(2, 0), time.Unix(3, 0)
	a := lb.Endpoint{ID: "a", Addr: netip.MustParseAddrPort("10.0.0.1:80")}
	loop := cycles.Verdict{Reason: cycles.Loop, Text: "leads back"}
	cases := []struct {
		name string
		view endpoints.EndpointView
		want Endpoint
	}{
		{
			"in the set", endpoints.EndpointView{Endpoint: a, Joined: joined},
			Endpoint{ID: "a", Address: "10.0.0.1:80", Weight: 1, State: StateIn, Reason: ReasonHealthy, Since: &joined},
		}, {
			"drained", endpoints.EndpointView{Endpoint: a, Joined: joined, Drained: drained},
			Endpoint{
				ID: "a", Address: "10.0.0.1:80", Weight: 1, State: StateOut, Reason: ReasonDrained, Since: &drained,
				Detail: "drained by an operator, in this Lictor only",
			},
		}, {
			"drained and gone", endpoints.EndpointView{Endpoint: lb.Endpoint{ID: "a"}, Drained: drained},
			Endpoint{
				ID: "a", State: StateOut, Reason: ReasonDrained, Since: &drained,
				Detail: "drained by an operator, and gone from the set since",
			},
		}, {
			"drained by alice for a while", endpoints.EndpointView{Endpoint: a, Joined: joined, Drained: drained,
				Drain: endpoints.Drain{By: "alice", Reason: "new disk", Until: forbidden}},
			Endpoint{
				ID: "a", Address: "10.0.0.1:80", Weight: 1, State: StateOut, Reason: ReasonDrained, Since: &drained,
				Until: &forbidden, DrainedBy: "alice", DrainReason: "new disk",
				Detail: "drained by alice, in this Lictor only: new disk",
			},
		}, {
			"leads back, and drained",
			endpoints.EndpointView{Endpoint: a, Joined: joined, Drained: drained, Forbidden: forbidden, Verdict: loop},
			Endpoint{
				ID: "a", Address: "10.0.0.1:80", Weight: 1, State: StateOut, Reason: ReasonLoop, Since: &forbidden,
				Detail: "leads back",
			},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff([]Endpoint{c.want}, endpointsOf([]endpoints.EndpointView{c.view})); diff != "" {
				t.Errorf("differs (-want +got):\n%s", diff)
			}
		})
	}
}
