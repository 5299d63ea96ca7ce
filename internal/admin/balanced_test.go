package admin

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

func TestBalancedSaysWhatTheBalancerDoes(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tt := range []struct {
		name string
		s    lb.EndpointSnapshot
		all  lb.ServiceSnapshot
		want string
	}{
		{"in", lb.EndpointSnapshot{}, lb.ServiceSnapshot{}, "  "},
		{"ejected", lb.EndpointSnapshot{State: lb.StateEjected, Cause: lb.Refused, Fails: 3, TryIn: 10 * time.Second},
			lb.ServiceSnapshot{}, "out ejected refused, 3 in a row until 1010"},
		{"due", lb.EndpointSnapshot{State: lb.StateEjected, Cause: lb.Reset, Fails: 1}, lb.ServiceSnapshot{},
			"out ejected reset, 1 in a row; the next client tries it"},
		{"checked", lb.EndpointSnapshot{State: lb.StateEjected, Cause: lb.Unreachable, Fails: 4, TryIn: time.Second,
			Checked: true}, lb.ServiceSnapshot{}, "out ejected unreachable, 4 in a row; until it answers a check"},
		{"trial", lb.EndpointSnapshot{State: lb.StateTrial, Cause: lb.Unfit, Fails: 1}, lb.ServiceSnapshot{},
			"out trial unfit, 1 in a row"},
		{"full", lb.EndpointSnapshot{State: lb.StateFull, Open: 9}, lb.ServiceSnapshot{},
			"out full open connections: 9, as many as it may have"},
		{"slow", lb.EndpointSnapshot{State: lb.StateSlow, Share: 0.25}, lb.ServiceSnapshot{},
			"in slow_start at 25% of its share"},
		{"troubled", lb.EndpointSnapshot{State: lb.StateTroubled, Fails: 1}, lb.ServiceSnapshot{},
			"in troubled failures in a row: 1"},
		{"panic", lb.EndpointSnapshot{State: lb.StateEjected, Cause: lb.Refused, Fails: 3, TryIn: time.Second},
			lb.ServiceSnapshot{Panicking: true}, "in ejected refused, 3 in a row; ignored, because so many are " +
				"ejected"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.all.Service, tt.all.Endpoints = "web", []lb.EndpointSnapshot{tt.s}
			e := balancedOf(now, []lb.ServiceSnapshot{tt.all})["web"].Endpoints[0]
			got := strings.Join([]string{e.State, e.Reason, e.Detail}, " ")
			if e.Until != nil {
				got += fmt.Sprint(" until ", e.Until.Unix())
			}
			if got != tt.want || e.Counters.Active != tt.s.Open {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
