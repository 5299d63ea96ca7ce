package lb

import (
	"math"
	"sync/atomic"
	"time"
)

// A Member is an endpoint in its service, as returned by NextEndpoint. A Member stays valid after its endpoint has left
// the service. The methods of a Member may be called concurrently. The Endpoint must not be changed.
//
// Each pick begins one use of the endpoint. During the use, the proxier calls each of these methods at most once:
//
//	Connected      the TCP connection to the endpoint is established. Not for UDP, where connecting sends nothing.
//	Accepted       in place of Connected, if the endpoint may still deny the connection.
//	Dialed(took)   after Connected or Accepted: how long connecting took.
//	Reached        the first byte, or the first datagram of a session, came from the endpoint.
//	Denied(why)    after Accepted, or in place of it: the endpoint has denied the connection.
//	Unanswered     after Accepted: the endpoint has ended the connection before it sent anything.
//	Failed(cause)  the endpoint could not be reached, or reset the connection. Do not report failures of this host (no
//	               descriptors, ports or memory), nor clients that gave up.
//	FailedWith     in place of Failed: with the error, which says more than the cause.
//	Done           the use is over. Exactly once, after all other reports.
//
// An event loop can call all of these methods: for a healthy endpoint, each costs a few atomic operations.
type Member struct {
	Endpoint
	*usage
	trial *trialUse // the trial of an ejected endpoint that this use makes; nil: this use is no trial
	zone  *zone     // the zone of Endpoint.Zone
}

// Cause is the reason why an endpoint could not be reached.
type Cause int

// The causes.
const (
	// Refused means that the host answered that nothing listens at the address. The answer to a SYN is a TCP reset; the
	// answer to a datagram is an ICMP "port unreachable" message.
	Refused Cause = 1 + iota

	// Unreachable means that there was no answer in time, no route to the host, or no such host.
	Unreachable

	// Reset means that the endpoint accepted the connection, and reset it before sending any data.
	Reset

	// Unfit means that the endpoint gave an unexpected answer to an active check.
	Unfit

	// Handshake means that the endpoint accepted the connection, but the TLS handshake failed, see ErrHandshake, or the
	// endpoint refused to do one.
	Handshake
)

// String returns one word for the cause, such as "refused". String returns "none" for a zero Cause.
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
	case Handshake:
		return "handshake"
	}
	return "none"
}

// A usage is what the balancer knows about an endpoint from its use in one service. All Members of the endpoint share
// one usage. A usage survives a change of the endpoint's weight, but not of its address.
type usage struct {
	id      string
	standby bool // the endpoint is on standby and not a member, see Prober.Standby
	group   *group
	health  *health // shared by all services that use the address

	// joined is when the endpoint joined the service. A zero joined means that the endpoint was in the service's first
	// set, and needs no slow start.
	joined instant

	left atomic.Bool
	kept atomic.Bool           // see Keep
	gone atomic.Pointer[Leave] // nil: the endpoint has not left for good

	unserved atomic.Pointer[unserved] // nil: the endpoint has served all connections that were not reported as failed

	index atomic.Int32 // index in the group's members; during an update it may be the index of another member
	entry ejectedEntry

	_          [64]byte // keeps the fields that each pick writes off the cache line of the others
	open       atomic.Int64
	picks      atomic.Int64
	failed     atomic.Int64
	dials      atomic.Int64  // uses that were Dialed
	dialTime   atomic.Int64  // how long those dials took in total, in nanoseconds
	finishBits atomic.Uint64 // the bits of a float64, see finish
}

// Left reports whether the endpoint has left its service or has moved to another address. Left costs one atomic load.
func (m *Member) Left() bool { return m.left.Load() }

// Ejected reports whether the service sends no clients to the endpoint because the endpoint is ejected. Ejected returns
// false for a use that is the trial of the endpoint, and while the service ignores ejections. For a healthy endpoint,
// Ejected costs one atomic load.
func (m *Member) Ejected() bool { return m.health.ejectedUntil.Load() != 0 && m.avoided() }

// avoided reports whether the service sends no clients to an ejected endpoint. avoided returns false if m is the trial
// of the endpoint.
func (m *Member) avoided() bool {
	if m.group.panicking.Load() || m.group.options().MaxFails < 0 {
		return false
	}
	return m.trial == nil || !m.health.isTrial(m.trial)
}

// Connected reports to the balancer that the endpoint accepted a connection.
func (m *Member) Connected() { m.health.connected(m.trial) }

// Dialed counts a successful dial of the endpoint that took so long. Dialed changes nothing else.
func (m *Member) Dialed(took time.Duration) {
	m.dials.Add(1)
	m.dialTime.Add(int64(took))
}

// Accepted reports to the balancer that the endpoint accepted a connection that it may still deny. Only what the
// endpoint sends shows that it serves. An ejected endpoint has returned if its trial goes on for trialSilence.
func (m *Member) Accepted() { m.health.accepted(m.trial) }

// Reached reports to the balancer that the endpoint sent something.
func (m *Member) Reached() {
	m.health.reached()
	if u := m.unserved.Load(); u != nil {
		u.answered(m)
	}
}

// Failed reports to the balancer that the endpoint could not be reached, with the cause.
func (m *Member) Failed(c Cause) { m.FailedWith(c, nil) }

// FailedWith is Failed with the error that c is the cause of, see CauseOf. If c is Handshake, EndpointSnapshot.Why has
// the text of err. A nil err has no text.
func (m *Member) FailedWith(c Cause, err error) {
	m.failed.Add(1)
	m.health.failed(c, whyOf(c, err), m.group.options().maxFails(), m.trial)
}

// begin counts a new use. begin returns the open uses of the endpoint and of the service, with the new use included.
func (m *Member) begin() (inEndpoint, inService int64) {
	inEndpoint = m.open.Add(1)
	m.noteOpen(inEndpoint)
	return inEndpoint, m.group.open.Add(1)
}

// noteOpen updates the member's mark in the roster if the number of open uses equals the limit per endpoint, or is one
// less.
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

// farPart returns the part of the endpoint's weight that counts for clients that leave the own zone, see zone.farPart.
func (m *Member) farPart() float64 {
	if m.Near {
		return 0
	}
	return m.zone.farPart()
}

// servesSince returns when the endpoint joined the service, or when its last ejection ended, if that was later. Zero
// means that the endpoint has served since the first set of the service.
func (u *usage) servesSince() instant { return max(u.joined, u.health.returnedAt.Load()) }

// replaceMembersLocked returns the members for endpoints. The endpoints must be valid and have distinct IDs. If a
// member of old has the same ID and address as an endpoint, the new member keeps its usage. An unchanged member of old
// stays in use. All other members of old leave the service.
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
		case m != nil && m.Place() == e.Place():
			delete(byID, e.ID)
			m = &Member{Endpoint: e, usage: m.usage, zone: g.zoneLocked(e.Zone)}
		default:
			m = &Member{Endpoint: e, usage: g.newUsage(e, joined), zone: g.zoneLocked(e.Zone)}
		}
		members = append(members, m)
	}
	g.dropZonesLocked(members)
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
