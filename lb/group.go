package lb

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// A group is one service: its options, its members, and what policies remember of them.
//
// Picks read the state, an immutable snapshot; updates build another one and swap it.
type group struct {
	name     string
	balancer *RoundRobin
	registry *healthRegistry // the balancer's
	mu       sync.Mutex      // one update at a time
	removed  bool            // the balancer has let go of the group; guarded by mu
	state    atomic.Pointer[state]

	// Those that have left and may be in use yet; guarded by mu. What is picked while they leave is counted a moment
	// later, so that they are forgotten by a later update.
	former []*Member

	// What the members' healths come to, kept by recount and review so that picks need not look at all of them.
	healthMu       sync.Mutex
	ejectedMembers ejectedHeap   // guarded by healthMu
	ejectedCount   atomic.Int64  // how many those are
	ejections      atomic.Int64  // ever
	panicking      atomic.Bool   // ejections are ignored
	nextDue        atomicInstant // when an ejected member should be looked at
	slowStartEnd   atomicInstant // until when some member is starting slowly; 0: none is

	_          [64]byte     // what follows changes with each pick
	open       atomic.Int64 // uses that are not over
	firstPicks atomic.Int64 // picks of clients who had tried nobody

	budget budget // of the other picks
	queue  queue
}

// A state is what a group is between two updates.
type state struct {
	options Options
	known   bool // an update has named the service
	members []*Member
	roster  *roster      // of the members
	sticky  *stickyTable // nil: not sticky

	// One of these, by the policy. The rotation is kept over updates.
	rotation *rotation
	retries  *rotation // of clients who have tried some; nil for more than manyMembers
	least    *leastConnections
	random   *randomTwo
	hash     *sourceHash
}

func newGroup(name string, b *RoundRobin) *group {
	g := &group{name: name, balancer: b, registry: b.registry}
	g.state.Store(&state{roster: newRoster(g, nil), rotation: &rotation{}, retries: &rotation{}})
	g.nextDue.Store(distantFuture)
	return g
}

func (g *group) options() *Options { return &g.state.Load().options }

func (g *group) addressOf(e Endpoint) address {
	a := address{network: g.options().Network, host: e.Host, addr: e.Addr}
	if e.Host != "" {
		a.addr = netip.AddrPortFrom(netip.Addr{}, e.Addr.Port())
	}
	return a
}

// configure changes the options. Members stay as they are, unless they are used by another network now. It returns
// false, and does nothing, if the group has been removed.
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
		g.state.Store(&network) // for address
		endpoints := make([]Endpoint, 0, len(old.members))
		for _, m := range old.members {
			endpoints = append(endpoints, m.Endpoint)
		}
		g.replaceMembers(old.members, nil)
		st.members = g.replaceMembers(nil, endpoints)
	}
	g.swapLocked(&st)
	return true
}

// update makes endpoints, valid ones of distinct IDs, the members, and notifies of those that are known to have left
// for good by what left says. It may reorder endpoints. It returns false, and does nothing, if the group has been
// removed.
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

// remove ends the group, which the balancer has let go of: it has no members any more, and never will.
func (g *group) remove() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removed = true
	g.replaceLocked(nil, nil, false)
}

// replaceLocked makes endpoints the members. It returns those that are known to have left for good by what left says.
func (g *group) replaceLocked(endpoints []Endpoint, left []Departure, known bool) (gone []*Member) {
	g.dropUnusedLocked()
	g.registry.dropUnused()
	st := *g.state.Load()
	st.members = g.replaceMembers(st.members, endpoints)
	st.known = known
	g.swapLocked(&st)
	return g.markGoneLocked(left)
}

// swapLocked puts a state in place, and has everything that follows from it follow.
func (g *group) swapLocked(st *state) {
	old := g.state.Load()
	same := slices.Equal(st.members, old.members)
	if !same || st.options.Policy != old.options.Policy {
		st.build(g)
	}
	switch {
	case st.options.Sticky <= 0:
		st.sticky = nil
	case st.sticky == nil:
		st.sticky = newStickyTable(maxSticky)
	}
	g.state.Store(st)
	if !same || st.options != old.options {
		g.reviewAll()
	}
}

// build makes what the policy needs to pick from the members.
func (st *state) build(g *group) {
	turns, retries, least := st.rotation, st.retries, st.least
	st.rotation, st.retries, st.least, st.random, st.hash = nil, nil, nil, nil, nil
	st.roster = newRoster(g, st.members)
	switch st.options.Policy {
	case PolicyLeastConnections:
		st.least = &leastConnections{roster: st.roster}
		if least != nil {
			st.least.virtualTime.Store(least.virtualTime.Load())
		}
	case PolicyRandomTwo:
		st.random = &randomTwo{st.roster}
	case PolicySourceHash:
		st.hash = newSourceHash(st.roster)
	default:
		if st.rotation = turns; turns == nil {
			st.rotation = &rotation{}
		}
		st.rotation.replace(st.members)
		if st.roster.isLarge() {
			break
		}
		if st.retries = retries; retries == nil {
			st.retries = &rotation{}
		}
		st.retries.replace(st.members)
	}
}

// nextEndpoint picks a member for a client. Nobody overtakes those who wait.
func (g *group) nextEndpoint(src netip.Addr, tried *Tried) (*Member, error) {
	if tried.Len() == 0 {
		g.firstPicks.Add(1)
	}
	if g.queue.waiting.Load() > 0 {
		return nil, ErrFull
	}
	return g.pick(src, tried)
}

// maxRaces is how often a pick is made again because somebody else was faster to take the last room of an endpoint.
const maxRaces = 4

// pick picks a member for a client, if there is room.
func (g *group) pick(src netip.Addr, tried *Tried) (*Member, error) {
	st := g.state.Load()
	if !st.known {
		return nil, ErrMissingServiceEntry
	}
	for range maxRaces {
		if most := int64(st.options.MaxConnections); most > 0 && g.open.Load() >= most {
			return nil, ErrFull
		}
		q := query{tried: tried, panicking: g.panicking.Load(), maxOpen: int64(st.options.MaxPerEndpoint)}
		ramped := g.slowStartEnd.Load()
		if ramped != 0 || st.sticky != nil {
			q.now = g.registry.clock.now()
		}
		if q.now < ramped {
			q.slowStart = st.options.SlowStart
		} else if ramped != 0 {
			g.slowStartEnd.CompareAndSwap(ramped, 0)
		}
		var m *Member
		var err error
		if tried.Len() == 0 {
			m, err = g.pickFirst(st, src, &q)
		} else {
			m, err = g.pickRetry(st, src, &q)
		}
		if err != nil || g.claim(st, m) {
			return m, err
		}
	}
	return nil, ErrFull
}

// pickFirst picks a member for a client that has tried nobody yet.
func (g *group) pickFirst(st *state, src netip.Addr, q *query) (*Member, error) {
	if !q.panicking && g.ejectedCount.Load() > 0 {
		if m := g.pickTrial(q); m != nil {
			return m, nil
		}
	}
	m := st.pick(src, q)
	if m == nil && !q.sawFull && !q.panicking && st.options.panics(len(st.members), len(st.members)) {
		q.panicking = true // all have just been ejected, and that is not counted yet
		m = st.pick(src, q)
	}
	return m, q.err(m)
}

// pickRetry picks a member for a client that has tried some in vain: of those that have not failed since they were
// last reached; else, as far as the budget goes, of those that are not ejected; and else of all, for to be refused
// is the worst that can happen to it.
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

// claim counts a use, and tells whether there was room for it.
func (g *group) claim(st *state, m *Member) bool {
	o := &st.options
	inEndpoint, inService := m.begin()
	if o.MaxPerEndpoint > 0 && inEndpoint > int64(o.MaxPerEndpoint) || o.MaxConnections > 0 &&
		inService > int64(o.MaxConnections) {
		m.Done()
		return false
	}
	m.picks.Add(1)
	return true
}
