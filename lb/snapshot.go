package lb

import (
	"slices"
	"strings"
	"time"
)

// A ServiceSnapshot is the state of one service at one moment.
type ServiceSnapshot struct {
	Service   string
	Policy    Policy
	Sticky    int   // clients that the service keeps at an endpoint
	Open      int64 // connections or sessions that are not over
	Waiting   int64 // clients in the queue
	Queue     int   // clients that may wait now, for a free connection or for the first endpoint; zero if none may
	Full      bool  // Options.MaxConnections are open
	Ejections int64 // ejections of the service's endpoints, caused by any service
	Panicking bool  // picks ignore ejections, because too many endpoints are ejected

	// EmptyUntil is when clients stop waiting for the first endpoint. EmptyUntil is zero if clients do not wait for
	// one.
	EmptyUntil time.Time

	Near *NearSnapshot // nil: the service prefers no endpoints

	Endpoints []EndpointSnapshot
}

// An EndpointSnapshot is the state of one endpoint at one moment.
type EndpointSnapshot struct {
	Endpoint
	State State
	Open  int64 // connections or sessions that are not over

	// Picks, Failures, Dials and DialTime count since the endpoint joined the service at its address. DialTime is how
	// long the successful Dials took in total.
	Picks    int64
	Failures int64
	Dials    int64
	DialTime time.Duration

	// Fails, Ejections, Cause and Why describe the failures in a row since the endpoint was last reached. All services
	// that use the address share them.
	Fails     int    // failures in a row
	Ejections int    // ejections in a row
	Cause     Cause  // cause of the last ejection
	Why       string // the error of the last failure, if it was a TLS handshake; at most 512 bytes

	// Denied and Unanswered count the connections that the endpoint has denied, or ended before it sent anything, since
	// it last answered one of this service.
	Denied     Unserved
	Unanswered Unserved

	// TryIn is the time until an endpoint in StateEjected is tried. If TryIn is zero or negative, the next pick tries
	// the endpoint.
	TryIn time.Duration

	// Checked says that only active checks, and no picks, try the endpoint while it is in StateEjected.
	Checked bool

	Share float64 // the part of the weight that counts now: less than 1 during a slow start
}

// State says whether an endpoint may be picked.
type State int

// The states of an endpoint. While ServiceSnapshot.Panicking is true, picks use endpoints in StateEjected too.
const (
	StateIn       State = iota // the endpoint gets its share of picks
	StateEjected               // the endpoint is ejected and gets no picks
	StateTrial                 // one use tries the ejected endpoint, which gets no other picks
	StateSlow                  // the endpoint is in a slow start, and gets less than its share
	StateFull                  // the endpoint has reached its limit of open uses
	StateTroubled              // the endpoint gets its share, but has failed since it was last reached
)

// String returns one word for the state, such as "slow_start".
func (s State) String() string {
	names := []string{"in", "ejected", "trial", "slow_start", "full", "troubled"}
	if s < 0 || int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// Snapshot returns the state of all services that an update has named. Services are sorted by name, and the endpoints
// of each service by ID.
func (b *RoundRobin) Snapshot() []ServiceSnapshot {
	var out []ServiceSnapshot
	b.services.Range(func(name, g any) bool {
		if s, ok := g.(*group).snapshot(); ok {
			s.Service = name.(string)
			out = append(out, s)
		}
		return true
	})
	slices.SortFunc(out, func(a, b ServiceSnapshot) int { return strings.Compare(a.Service, b.Service) })
	return out
}

func (g *group) snapshot() (ServiceSnapshot, bool) {
	st := g.state.Load()
	s := ServiceSnapshot{Policy: st.options.Policy, Open: g.open.Load(), Waiting: g.queue.waiting.Load(),
		Ejections: g.ejections.Load(), Near: g.nearSnapshot(st)}
	ignores := st.options.MaxFails < 0 // ejections by other services do not concern this one
	s.Panicking = !ignores && g.panicking.Load() && g.ejectedCount.Load() > 0
	if st.options.QueueTimeout > 0 || st.emptyWait() > 0 {
		s.Queue = st.options.MaxQueue
	}
	s.Full = st.options.MaxConnections > 0 && s.Open >= int64(st.options.MaxConnections)
	if st.sticky != nil {
		s.Sticky = st.sticky.len()
	}
	if st.emptyWait() > 0 {
		s.EmptyUntil = st.emptied.Add(st.options.EmptyWait)
	}
	q := query{now: g.registry.clock.now(), slowStart: st.options.SlowStart, maxOpen: int64(st.options.MaxPerEndpoint)}
	for _, m := range st.members {
		s.Endpoints = append(s.Endpoints, m.snapshot(&q, ignores))
	}
	slices.SortFunc(s.Endpoints, func(a, b EndpointSnapshot) int { return strings.Compare(a.ID, b.ID) })
	return s, st.known
}

// snapshot returns the state of m. If ignores is true, the service's picks ignore ejections.
func (m *Member) snapshot(q *query, ignores bool) EndpointSnapshot {
	s := EndpointSnapshot{Endpoint: m.Endpoint, Open: m.open.Load(), Picks: m.picks.Load(), Failures: m.failed.Load(),
		Dials: m.dials.Load(), DialTime: time.Duration(m.dialTime.Load()), Share: q.share(m)}
	if u := m.unserved.Load(); u != nil {
		u.mu.Lock()
		s.Denied, s.Unanswered = u.denied, u.unanswered
		u.mu.Unlock()
	}
	h := m.health
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Fails, s.Ejections, s.Cause = h.dialFailures+h.resets, h.quick+h.ejections, h.cause
	s.Why = h.why
	switch {
	case !ignores && h.trial != nil:
		s.State = StateTrial
	case !ignores && h.ejectedUntil.Load() != 0:
		s.State, s.TryIn, s.Checked = StateEjected, h.ejectedUntil.Load().sub(q.now), h.checks.decide()
	case !q.hasRoom(m):
		s.State = StateFull
	case s.Share < 1:
		s.State = StateSlow
	case h.troubled.Load():
		s.State = StateTroubled
	}
	return s
}
