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
	Sticky    int   // clients that stick to an endpoint
	Open      int64 // uses that are not over
	Waiting   int64 // clients in the queue
	Ejections int64 // ejections of its endpoints, by any service that uses the address
	Panicking bool  // picks ignore ejections, because too many endpoints are ejected

	// EmptyUntil is until when clients wait for the first endpoint. It is zero if they do not.
	EmptyUntil time.Time

	Endpoints []EndpointSnapshot
}

// An EndpointSnapshot is the state of one endpoint at one moment.
type EndpointSnapshot struct {
	Endpoint
	State State
	Open  int64 // uses that are not over

	// Since the endpoint joined the service at its address:
	Picks    int64
	Failures int64

	// In a row, since the endpoint was last reached. All services that use the address share these.
	Fails     int   // failures
	Ejections int   // how often it was ejected
	Cause     Cause // of the last ejection

	// TryIn is how long an endpoint in StateEjected is not tried. If it is zero or negative, the next pick tries it.
	TryIn time.Duration

	// Checked says of an endpoint in StateEjected that no pick tries it: it must answer an active check.
	Checked bool

	Share float64 // the part of its weight that counts now: less than 1 during a slow start
}

// State says whether an endpoint may be picked.
type State int

// The states of an endpoint. If ServiceSnapshot.Panicking is set, an endpoint in StateEjected is picked all the same.
const (
	StateIn       State = iota // it gets its share of picks
	StateEjected               // it gets no picks
	StateTrial                 // it gets no picks while one use tries it
	StateSlow                  // it is in its slow start, and gets less than its share
	StateFull                  // it has its limit of open uses
	StateTroubled              // it gets its share, but has failed since it was last reached
)

// String returns one word for the state, such as "slow_start".
func (s State) String() string {
	names := []string{"in", "ejected", "trial", "slow_start", "full", "troubled"}
	if s < 0 || int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// Snapshot returns all services that an update has named, sorted by name, and their endpoints sorted by ID.
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
		Ejections: g.ejections.Load()}
	s.Panicking = g.panicking.Load() && g.ejectedCount.Load() > 0
	if st.sticky != nil {
		s.Sticky = st.sticky.len()
	}
	if st.emptyWait() > 0 {
		s.EmptyUntil = st.emptied.Add(st.options.EmptyWait)
	}
	q := query{now: g.registry.clock.now(), slowStart: st.options.SlowStart, maxOpen: int64(st.options.MaxPerEndpoint)}
	for _, m := range st.members {
		s.Endpoints = append(s.Endpoints, m.snapshot(&q))
	}
	slices.SortFunc(s.Endpoints, func(a, b EndpointSnapshot) int { return strings.Compare(a.ID, b.ID) })
	return s, st.known
}

func (m *Member) snapshot(q *query) EndpointSnapshot {
	s := EndpointSnapshot{Endpoint: m.Endpoint, Open: m.open.Load(), Picks: m.picks.Load(), Failures: m.failed.Load(),
		Share: q.share(m)}
	h := m.health
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Fails, s.Ejections, s.Cause = h.dialFailures+h.resets, h.quick+h.ejections, h.cause
	switch {
	case h.trial != nil:
		s.State = StateTrial
	case h.ejectedUntil.Load() != 0:
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
