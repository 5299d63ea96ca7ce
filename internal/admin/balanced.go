package admin

import (
	"fmt"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A Balancer provides the state of endpoints as the load balancer sees it. *lb.RoundRobin is a Balancer.
type Balancer interface {
	Snapshot() []lb.ServiceSnapshot
}

// Names provides what is known of the host names of endpoints. *lb.Resolver implements it.
type Names interface {
	Name(host string) (lb.NameSnapshot, bool)
	Lookups() lb.Lookups // counts of completed lookups
	Stale() int          // number of names with a failed last lookup
}

// BalancedBy returns a function for State.Balanced that reads from b and names. Names may be nil.
func BalancedBy(b Balancer, names Names) func() map[string]Balanced {
	return func() map[string]Balanced { return balancedOf(time.Now(), b.Snapshot(), names) }
}

func balancedOf(now time.Time, all []lb.ServiceSnapshot, names Names) map[string]Balanced {
	out := make(map[string]Balanced, len(all))
	for i := range all {
		s := &all[i]
		b := Balanced{Waiting: s.Waiting, Queue: s.Queue, Full: s.Full, Ejections: s.Ejections, Panicking: s.Panicking,
			EmptyUntil: s.EmptyUntil, Near: nearOf(s.Near)}
		for j := range s.Endpoints {
			e := balancedEndpoint(now, &s.Endpoints[j], s.Panicking)
			e.Name = hostName(now, s.Endpoints[j].Host, names)
			b.Endpoints = append(b.Endpoints, e)
		}
		out[s.Service] = b
	}
	return out
}

// balancedEndpoint converts an endpoint's snapshot. The result has an empty State if the balancer treats the endpoint
// normally.
func balancedEndpoint(now time.Time, s *lb.EndpointSnapshot, panicking bool) Endpoint {
	e := Endpoint{ID: s.ID, Counters: &EndpointCounters{Active: s.Open, Picks: s.Picks, DialsFailed: s.Failures,
		Dials: s.Dials, DialSeconds: s.DialTime.Seconds()}}
	e.Denied, e.Unanswered = unservedOf(&s.Denied), unservedOf(&s.Unanswered)
	failures := fmt.Sprintf("%s, %d in a row", s.Cause, s.Fails)
	switch s.State {
	case lb.StateEjected:
		e.State, e.Reason, e.Detail = StateOut, ReasonEjected, failures
		switch {
		case s.Checked:
			e.Detail += "; out until it answers a check"
		case s.TryIn > 0:
			until := now.Add(s.TryIn).Round(time.Second) // rounded, so that each snapshot shows the same time
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
		e.State, e.Until, e.Detail = StateIn, nil, failures+"; ignored, because too many endpoints are ejected"
	}
	if s.Why != "" && (e.Reason == ReasonEjected || e.Reason == ReasonTrial || e.Reason == ReasonTroubled) {
		e.Detail += "; the last TLS handshake failed: " + s.Why
	}
	return e
}

// unservedOf converts the connections that an endpoint has not served. unservedOf returns nil if there are none.
func unservedOf(u *lb.Unserved) *Unserved {
	if u.Connections == 0 {
		return nil
	}
	return &Unserved{Connections: u.Connections, Since: u.Since, Last: u.Last, Why: u.Why}
}

// hostName returns what is known of an endpoint's host name. hostName returns nil if the endpoint has no host name, or
// if nothing is known of it.
func hostName(now time.Time, host string, names Names) *HostName {
	if host == "" || names == nil {
		return nil
	}
	n, known := names.Name(host)
	if !known {
		return nil
	}
	h := &HostName{Problem: n.Err}
	for _, a := range n.Addrs {
		h.Addresses = append(h.Addresses, a.String())
	}
	if n.Err != "" && n.Age >= 0 {
		at := now.Add(-n.Age).Round(time.Second) // rounded, so that each snapshot shows the same time
		h.FoundAt = &at
	}
	return h
}
