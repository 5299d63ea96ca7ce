package lb

import (
	"math"
	"sync/atomic"
)

// A Member is an endpoint in its service, as NextEndpoint returns it. It stays valid after the endpoint has left. Its
// methods may be called concurrently. The Endpoint must not be changed.
//
// Each pick is one use of the endpoint. The proxier reports what happens during the use, each with at most one call:
//
//	Connected      the TCP connection to the endpoint is established. Not for UDP, where connecting sends nothing.
//	Reached        the first byte, or the first datagram of a session, came from the endpoint.
//	Failed(cause)  the endpoint could not be reached, or reset the connection. Do not report failures of this host (no
//	               descriptors, ports or memory), nor clients that gave up.
//	Done           the use is over. Exactly once, after all other reports.
//
// All are cheap enough for an event loop: a few atomic operations while the endpoint is well.
type Member struct {
	Endpoint
	*usage
	trial *trialUse // set if this use tries an ejected endpoint; else nil
}

// Cause is what kept an endpoint from being reached.
type Cause int

// The causes.
const (
	// Refused: the host answered that nothing listens at the address, to a SYN or to a datagram (ICMP port
	// unreachable).
	Refused Cause = 1 + iota

	// Unreachable: there was no answer in time, no route to the host, or no such host.
	Unreachable

	// Reset: the connection was established, and reset before the endpoint had sent anything.
	Reset

	// Unfit: the endpoint answered an active check with something other than what was expected.
	Unfit
)

// String returns one word for the cause, such as "refused". It is "none" for zero.
func (c Cause) String() string {
	switch c {
	case Refused:
		return "refused"
	case Unreachable:
		return "unreachable"
	case Reset:
		return "reset"
	case Unfit:
		return "unfit"
	}
	return "none"
}

// A usage is what is known about an endpoint from its use in one service. All Members of the endpoint share it. It
// survives a change of the endpoint's weight, but not of its address.
type usage struct {
	id      string
	standby bool // it is of no member, see Prober.Standby
	group   *group
	health  *health // shared by all services that use the address

	// joined is when the endpoint joined the service. Zero means with the service's first set: it needs no slow start.
	joined instant

	left  atomic.Bool
	gone  atomic.Pointer[Leave] // nil: it has not left for good
	index atomic.Int32          // in the group's members; stale during an update, so it may be another member's
	entry ejectedEntry

	_          [64]byte // keeps the fields that each pick writes off the cache line of the others
	open       atomic.Int64
	picks      atomic.Int64
	failed     atomic.Int64
	finishBits atomic.Uint64 // a float64, see finish
}

// Left reports whether the endpoint has left its service, or moved to another address. It costs one atomic load.
func (m *Member) Left() bool { return m.left.Load() }

// Ejected reports whether the endpoint is ejected, so that the service gives it no clients. It is false for the use
// that tries it, and while the service ignores ejections. While the endpoint is well, it costs one atomic load.
func (m *Member) Ejected() bool { return m.health.ejectedUntil.Load() != 0 && m.avoided() }

// avoided reports whether the service gives an endpoint that is ejected no clients, and m is not the use that tries it.
func (m *Member) avoided() bool {
	if m.group.panicking.Load() || m.group.options().MaxFails < 0 {
		return false
	}
	return m.trial == nil || !m.health.isTrial(m.trial)
}

// Connected reports that the endpoint accepted a connection.
func (m *Member) Connected() { m.health.connected(m.trial) }

// Reached reports that the endpoint sent something.
func (m *Member) Reached() { m.health.reached() }

// Failed reports that the endpoint could not be reached.
func (m *Member) Failed(c Cause) {
	m.failed.Add(1)
	m.health.failed(c, m.group.options().maxFails(), m.trial)
}

// begin counts a use. It returns the open uses of the endpoint and of the service, this one included.
func (m *Member) begin() (inEndpoint, inService int64) {
	inEndpoint = m.open.Add(1)
	m.noteOpen(inEndpoint)
	return inEndpoint, m.group.open.Add(1)
}

// noteOpen updates the member's mark in the roster if open uses are the most that it may have, or one less.
func (m *Member) noteOpen(open int64) {
	st := m.group.state.Load()
	limit := int64(st.options.MaxPerEndpoint)
	if limit > 0 && st.roster.isLarge() && (open == limit || open == limit-1) {
		st.roster.mark(int(m.index.Load()))
	}
}

// Done ends the use that the pick began.
func (m *Member) Done() {
	m.noteOpen(m.open.Add(-1))
	m.group.open.Add(-1)
	if m.trial != nil {
		m.health.endTrial(m.trial)
	}
	m.group.serveQueue()
	m.group.balancer.ended()
}

// finish returns the virtual time at which the endpoint's last tie ended, see leastConnections.
func (u *usage) finish() float64 { return math.Float64frombits(u.finishBits.Load()) }

func (u *usage) setFinish(v float64) { u.finishBits.Store(math.Float64bits(v)) }

// servesSince returns when the endpoint joined, or when its last ejection ended if that was later. Zero means that it
// has served since the first set of the service.
func (u *usage) servesSince() instant { return max(u.joined, u.health.returnedAt.Load()) }

// replaceMembersLocked returns the members for endpoints, which are valid and have distinct IDs. A member of old at
// the same address keeps its usage, and is kept itself if nothing changed. All other members of old leave.
func (g *group) replaceMembersLocked(old []*Member, endpoints []Endpoint) []*Member {
	byID := make(map[string]*Member, len(old))
	for _, m := range old {
		byID[m.ID] = m
	}
	joined := g.registry.clock.now()
	if len(old) == 0 {
		joined = 0
	}
	members := make([]*Member, 0, len(endpoints))
	for _, e := range endpoints {
		m := byID[e.ID]
		switch {
		case m != nil && m.Endpoint == e:
			delete(byID, e.ID)
		case m != nil && m.Host == e.Host && m.Addr == e.Addr:
			delete(byID, e.ID)
			m = &Member{Endpoint: e, usage: m.usage}
		default:
			m = &Member{Endpoint: e, usage: g.newUsage(e, joined)}
		}
		members = append(members, m)
	}
	for _, m := range byID {
		m.left.Store(true)
		if len(g.foreign) > 0 {
			m.open.Add(-g.foreign[m.useKey()])
		}
		g.former = append(g.former, m)
		g.registry.release(m.usage)
	}
	return members
}

func (g *group) newUsage(e Endpoint, joined instant) *usage {
	u := &usage{id: e.ID, group: g, joined: joined, entry: ejectedEntry{heapIndex: -1}}
	if len(g.foreign) > 0 {
		u.open.Store(g.foreign[UseKey{e.ID, e.Address()}])
	}
	g.registry.acquire(g.addressOf(e), u)
	return u
}
