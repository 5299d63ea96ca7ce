package admin

import (
	"fmt"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A Balancer is what the state of endpoints, as far as it comes from their use, is read from. *lb.RoundRobin is one.
type Balancer interface {
	Snapshot() []lb.ServiceSnapshot
}

// BalancedBy is a State's Balanced that reads from b.
func BalancedBy(b Balancer) func() map[string]Balanced {
	return func() map[string]Balanced { return balancedOf(time.Now(), b.Snapshot()) }
}

func balancedOf(now time.Time, all []lb.ServiceSnapshot) map[string]Balanced {
	out := make(map[string]Balanced, len(all))
	for i := range all {
		s := &all[i]
		b := Balanced{Waiting: s.Waiting, Ejections: s.Ejections, Panicking: s.Panicking,
			EmptyUntil: s.EmptyUntil}
		for j := range s.Endpoints {
			b.Endpoints = append(b.Endpoints, balancedEndpoint(now, &s.Endpoints[j], s.Panicking))
		}
		out[s.Service] = b
	}
	return out
}

// balancedEndpoint has no state where the balancer gives the endpoint its share.
func balancedEndpoint(now time.Time, s *lb.EndpointSnapshot, panicking bool) Endpoint {
	e := Endpoint{ID: s.ID, Counters: &EndpointCounters{Active: s.Open, Picks: s.Picks, DialsFailed: s.Failures}}
	failures := fmt.Sprintf("%s, %d in a row", s.Cause, s.Fails)
	switch s.State {
	case lb.StateEjected:
		e.State, e.Reason, e.Detail = StateOut, ReasonEjected, failures
		switch {
		case s.Checked:
			e.Detail += "; until it answers a check"
		case s.TryIn > 0:
			until := now.Add(s.TryIn).Round(time.Second) // so that it is the same in each snapshot
			e.Until = &until
		default:
			e.Detail += "; the next client tries it"
		}
	case lb.StateTrial:
		e.State, e.Reason, e.Detail = StateOut, ReasonTrial, failures
	case lb.StateFull:
		e.State, e.Reason, e.Detail = StateOut, ReasonFull,
			fmt.Sprintf("open connections: %d, as many as it may have", s.Open)
	case lb.StateSlow:
		e.State, e.Reason, e.Detail = StateIn, ReasonSlowStart, fmt.Sprintf("at %.0f%% of its share", 100*s.Share)
	case lb.StateTroubled:
		e.State, e.Reason, e.Detail = StateIn, ReasonTroubled, fmt.Sprintf("failures in a row: %d", s.Fails)
	}
	if panicking && (s.State == lb.StateEjected || s.State == lb.StateTrial) {
		e.State, e.Until, e.Detail = StateIn, nil, failures+"; ignored, because so many are ejected"
	}
	return e
}
