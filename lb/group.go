package lb

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A group holds one service: its options, its members, and what its policy remembers.
//
// Picks read the group's state, which is an immutable snapshot. An update builds a new state and swaps it in.
type group struct {
	name     string
	balancer *RoundRobin
	registry *healthRegistry // the balancer's
	mu       sync.Mutex      // serializes updates
	removed  bool            // the balancer no longer has this group; guarded by mu
	state    atomic.Pointer[state]

	// former holds members that have left the service and may still be in use; guarded by mu. A concurrent pick may not
	// be counted yet, so members without open uses are dropped only by a later update.
	former []*Member

	// foreign counts the uses by other processes; guarded by mu. The open counts of the group and of its current
	// members include the foreign uses.
	foreign map[UseKey]int64

	zones   map[string]*zone // zones of the members, by Endpoint.Zone; nil: the members have none; guarded by mu
	nowhere zone             // the zone of members with an empty Endpoint.Zone

	emptyTimer *time.Timer // ends the wait for the first endpoint; nil: no client waits for one; guarded by mu

	// The following fields summarise the health of the members, so that a pick need not examine all members. reviewAll
	// and review update the summary.
	healthMu       sync.Mutex
	ejectedMembers ejectedHeap   // guarded by healthMu
	ejectedCount   atomic.Int64  // the length of ejectedMembers
	ejections      atomic.Int64  // ejections of members since the group was created
	panicking      atomic.Bool   // picks ignore ejections
	nextDue        atomicInstant // when a pick should look at the next ejected member
	sharesDue      atomicInstant // when a slow start may have changed the weights of zones, see refreshShares
	slowStartEnd   atomicInstant // when the last slow start ends; 0: no member is in a slow start

	_          [64]byte     // keeps the fields that each pick writes off the cache line of the others
	open       atomic.Int64 // uses that are not over
	firstPicks atomic.Int64 // picks by clients that had tried no endpoint
	stayed     atomic.Int64 // picks of near endpoints, if the service prefers them
	left       atomic.Int64 // picks of other endpoints, if the service prefers near ones

	budget budget // limits retries
	queue  queue
}

// A state is the part of a group that picks read. A state never changes; an update replaces it.
type state struct {
	options Options
	known   bool      // an update has named the service
	emptied time.Time // when the service lost its last member; zero: it has members, or never had any
	members []*Member
	sticky  *stickyTable // nil: the service is not sticky
	chooser              // of members
	near    *nearby      // nil: the service prefers no endpoints, or all are alike
}

func newGroup(name string, b *RoundRobin) *group {
	g := &group{name: name, balancer: b, registry: b.registry}
	g.state.Store(&state{chooser: newChooser(g, PolicyRoundRobin, nil, chooser{})})
	g.nextDue.Store(distantFuture)
	return g
}

func (g *group) options() *Options { return &g.state.Load().options }

// addressOf returns the key under which the registry holds the health of e.
func (g *group) addressOf(e Endpoint) address {
	a := address{g.options().Network, e.Place()}
	if e.Host != "" {
		a.place.Addr = netip.AddrPortFrom(netip.Addr{}, e.Addr.Port())
	}
	return a
}

// configure changes the options. If the network changes, configure replaces all members; otherwise the members stay. If
// the group has been removed, configure returns false and does nothing.
func (g *group) configure(o Options) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.removed {
		return false
	}
	old := g.state.Load()
	st := *old
	st.options = o
	if o.Network != old.options.Network {
		network := *old
		network.options.Network = o.Network
		g.state.Store(&network) // addressOf reads it
		endpoints := make([]Endpoint, 0, len(old.members))
		for _, m := range old.members {
			endpoints = append(endpoints, m.Endpoint)
		}
		g.replaceMembersLocked(old.members, nil)
		st.members = g.replaceMembersLocked(nil, endpoints)
	}
	g.swapLocked(&st)
	return true
}

// update replaces the members by endpoints. The endpoints must be valid and have distinct IDs; update may reorder them.
// update calls the NotifyGone callback with the members that have left for good, as left says. If the group has been
// removed, update returns false and does nothing.
func (g *group) update(endpoints []Endpoint, left []Departure) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.removed {
		return false
	}
	if !g.state.Load().known {
		g.balancer.shuffle(len(endpoints), func(i, j int) { endpoints[i], endpoints[j] = endpoints[j], endpoints[i] })
	}
	gone := g.replaceLocked(endpoints, left, true)
	if notify := g.balancer.onGone.Load(); notify != nil && len(gone) > 0 {
		(*notify)(gone)
	}
	return true
}

// remove drops all members. The balancer calls remove after it has removed the group from its map.
func (g *group) remove() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removed = true
	g.replaceLocked(nil, nil, false)
}

// replaceLocked replaces the members by endpoints. replaceLocked returns the members for which left has a new reason of
// having left for good.
func (g *group) replaceLocked(endpoints []Endpoint, left []Departure, known bool) (gone []*Member) {
	g.dropUnusedLocked()
	g.registry.dropUnused()
	st := *g.state.Load()
	st.members = g.replaceMembersLocked(st.members, endpoints)
	st.known = known
	st.emptied = emptySince(g.state.Load(), &st)
	g.swapLocked(&st)
	return g.markGoneLocked(left)
}

// swapLocked makes st the state of the group, and updates the data that is derived from the state.
func (g *group) swapLocked(st *state) {
	old := g.state.Load()
	same := slices.Equal(st.members, old.members)
	if repick := !same || st.options.Policy != old.options.Policy; repick || st.options.Prefer != old.options.Prefer {
		st.near = newNearby(g, &st.options, st.members, st.near)
		if repick {
			st.chooser = newChooser(g, st.options.Policy, st.members, st.chooser)
		}
	}
	switch {
	case st.options.Sticky <= 0:
		st.sticky = nil
	case st.sticky == nil:
		st.sticky = newStickyTable(maxSticky)
	}
	g.state.Store(st)
	g.watchEmptyLocked(st)
	if !same || st.options != old.options || st.known != old.known {
		g.reviewAll()
	}
}

// nextEndpoint picks a member for a new client. If clients are waiting in the queue, nextEndpoint returns ErrFull, so
// that no client overtakes them.
func (g *group) nextEndpoint(src netip.Addr, tried *Tried) (*Member, error) {
	if tried.Len() == 0 {
		g.firstPicks.Add(1)
	}
	if g.queue.waiting.Load() > 0 {
		return nil, ErrFull
	}
	return g.pick(src, tried)
}

// maxAttempts limits how often one call of pick tries to get an endpoint. pick tries again when another pick has taken
// the endpoint's last free use.
const maxAttempts = 4

// pick picks a member for a client, and counts the use. pick returns ErrFull if a limit of open uses is reached.
func (g *group) pick(src netip.Addr, tried *Tried) (*Member, error) {
	st := g.state.Load()
	if !st.known {
		return nil, ErrMissingServiceEntry
	}
	for range maxAttempts {
		if most := int64(st.options.MaxConnections); most > 0 && g.open.Load() >= most {
			return nil, st.full()
		}
		q := query{tried: tried, panicking: g.panicking.Load(), maxOpen: int64(st.options.MaxPerEndpoint)}
		slowStartEnd := g.slowStartEnd.Load()
		if slowStartEnd != 0 || st.sticky != nil {
			q.now = g.registry.clock.now()
		}
		if q.now < slowStartEnd {
			q.slowStart = st.options.SlowStart
			g.refreshShares(st, q.now)
		} else if slowStartEnd != 0 {
			g.endSlowStart(st, slowStartEnd)
		}
		var m *Member
		var err error
		if tried.Len() == 0 {
			m, err = g.pickFirst(st, src, &q)
		} else {
			m, err = g.pickRetry(st, src, &q)
		}
		if err != nil {
			return nil, st.none(err)
		}
		if g.claim(st, m) {
			return m, nil
		}
	}
	return nil, ErrFull
}

// pickFirst picks a member for a client that has tried no endpoint yet.
func (g *group) pickFirst(st *state, src netip.Addr, q *query) (*Member, error) {
	if !q.panicking && g.ejectedCount.Load() > 0 {
		if m := g.pickTrial(q); m != nil {
			return m, nil
		}
	}
	m := st.pick(src, q)
	if m == nil && !q.sawFull && !q.panicking && st.options.panics(len(st.members), len(st.members)) {
		q.panicking = true // all members have just been ejected, and ejectedCount is not updated yet
		m = st.pick(src, q)
	}
	return m, q.err(m)
}

// pickRetry picks a member for a client after failed attempts. pickRetry prefers members that have not failed since
// they were last reached. If there is none, it takes a member that is not ejected, and then any member, because an
// error is the worst result for the client. A member that has failed costs a token of the retry budget.
func (g *group) pickRetry(st *state, src netip.Addr, q *query) (*Member, error) {
	q.panicking, q.skipTroubled = false, true
	if m := st.pick(src, q); m != nil {
		return m, nil
	}
	q.skipTroubled = false
	m := st.pick(src, q)
	if m == nil && !q.sawFull {
		q.panicking = true
		m = st.pick(src, q)
	}
	if m != nil && !g.budget.spend(g.firstPicks.Load(), g.registry.clock.now()) {
		return nil, ErrRetryBudget
	}
	return m, q.err(m)
}

// claim counts a use of m. If the use exceeds a limit, claim undoes the count and returns false.
func (g *group) claim(st *state, m *Member) bool {
	o := &st.options
	inEndpoint, inService := m.begin()
	if o.MaxPerEndpoint > 0 && inEndpoint > int64(o.MaxPerEndpoint) ||
		o.MaxConnections > 0 && inService > int64(o.MaxConnections) {
		m.Done()
		return false
	}
	m.picks.Add(1)
	if o.Prefer != PreferNone {
		if m.Near {
			g.stayed.Add(1)
		} else {
			g.left.Add(1)
		}
	}
	return true
}
