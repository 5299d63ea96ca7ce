package lb

import (
	"math"
	"sync/atomic"
)

// A Member is an endpoint in its service, as NextEndpoint hands it out: what it is, and where whoever uses it tells
// how that goes. It stays good when the endpoint has left. Its methods may be called concurrently; the Endpoint must
// not be changed.
//
// Each pick is one use. What the proxier tells of it, each with one call:
//
//	Connected      the TCP connection to the endpoint is there. Not for UDP, where to connect says nothing.
//	Reached        the first byte, or the first datagram of a session, came from the endpoint. Later ones need not be
//	               told.
//	Failed(cause)  the endpoint was not reached, or hung up on us. Not for what is wrong on our own side: no
//	               descriptors, no ports, no memory, or a client that gave up. Then nothing is told.
//	Done           the use is over, whatever was told before. Exactly once, and last.
//
// All are cheap enough to be called from an event loop: a few atomic operations where nothing is wrong.
type Member struct {
	Endpoint
	*usage
	trial *trialUse // if this use is the one that tries an ejected endpoint, else nil
}

// Cause is what was wrong with an endpoint that was not reached.
type Cause int

// The causes.
const (
	// Refused: there is a host at the address, and it says that nobody listens. The same of a datagram (ICMP port
	// unreachable).
	Refused Cause = 1 + iota

	// Unreachable: no answer in time, no way to the host, or no such host.
	Unreachable

	// Reset: the connection was established, and then reset before anything came from the endpoint.
	Reset

	// Unfit: the endpoint answered an active check, but not as it should.
	Unfit
)

// String is a word for it.
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

// A usage is what is known of an endpoint from its use in one service. It outlives a change of the endpoint's
// weight, but not of its address.
type usage struct {
	id     string
	group  *group
	health *health // shared with all services that use the address
	joined instant // when, on the registry's clock; 0: with the first set of the service, so it does not start slowly
	left   atomic.Bool
	gone   atomic.Pointer[Leave] // nil: not for good
	index  atomic.Int32          // place in the group's members; it may be another one's during an update
	entry  ejectedEntry

	_          [64]byte     // what follows changes with each pick
	open       atomic.Int64 // uses that are not over
	picks      atomic.Int64
	failed     atomic.Int64
	finishBits atomic.Uint64 // see leastConnections; the bits of a float64
}

// Left tells whether the endpoint has left its service, or is at another address now. It is one atomic load.
func (m *Member) Left() bool { return m.left.Load() }

// Connected notes that the endpoint took a connection.
func (m *Member) Connected() { m.health.connected(m.trial) }

// Reached notes that something came from the endpoint.
func (m *Member) Reached() { m.health.reached() }

// Failed notes that the endpoint was not reached.
func (m *Member) Failed(c Cause) {
	m.failed.Add(1)
	m.health.failed(c, m.group.options().maxFails(), m.trial)
}

// begin counts a use. It returns how many there are now, of the endpoint and of the service.
func (m *Member) begin() (inEndpoint, inService int64) {
	inEndpoint = m.open.Add(1)
	m.noteOpen(inEndpoint)
	return inEndpoint, m.group.open.Add(1)
}

// noteOpen is told how many uses there are, and notes whether the endpoint has room.
func (m *Member) noteOpen(open int64) {
	st := m.group.state.Load()
	if most := int64(st.options.MaxPerEndpoint); most > 0 && st.roster.isLarge() && (open == most || open == most-1) {
		st.roster.mark(int(m.index.Load()))
	}
}

// Done ends what the pick began.
func (m *Member) Done() {
	m.noteOpen(m.open.Add(-1))
	m.group.open.Add(-1)
	if m.trial != nil {
		m.health.endTrial(m.trial)
	}
	m.group.serveQueue()
}

// finish is for the policies: where the member is in a rotation of ties.
func (t *usage) finish() float64     { return math.Float64frombits(t.finishBits.Load()) }
func (t *usage) setFinish(v float64) { t.finishBits.Store(math.Float64bits(v)) }

// replaceMembers returns the members for endpoints, valid ones of distinct IDs. Those of old at the same address keep
// their usage, and are the same if nothing changed; the others of old leave. To be called with mu held.
func (g *group) replaceMembers(old []*Member, endpoints []Endpoint) []*Member {
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
		g.former = append(g.former, m)
		g.registry.release(m.usage)
	}
	return members
}

func (g *group) newUsage(e Endpoint, joined instant) *usage {
	t := &usage{id: e.ID, group: g, joined: joined, entry: ejectedEntry{heapIndex: -1}}
	g.registry.acquire(g.addressOf(e), t)
	return t
}
