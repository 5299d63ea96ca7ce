package lb

import (
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
)

// A group is one service: its options, its members, and what policies remember of them.
//
// Picks read the state, an immutable snapshot; updates build another one and swap it.
type group struct {
	book  *book
	mu    sync.Mutex // one update at a time
	state atomic.Pointer[state]

	// What the members' healths come to, kept by recount so that picks need not look at all of them.
	counting  sync.Mutex
	ejected   atomic.Int64 // members
	panicking atomic.Bool  // ejections are ignored
	due       atomic.Int64 // when an ejected member should be looked at
	ramped    atomic.Int64 // until when some member is starting slowly; 0: none is

	_      [64]byte     // what follows changes with each pick
	open   atomic.Int64 // uses that are not over
	firsts atomic.Int64 // picks of clients who had tried nobody

	budget budget // of the other picks
}

// A state is what a group is between two updates.
type state struct {
	options Options
	known   bool // an update has named the service
	members []*Member
	sticky  *stickyTable // nil: not sticky

	// One of these, by the policy. The rotation is kept over updates.
	rotation *rotation
	least    *leastConnections
	random   *randomTwo
	hash     *sourceHash
}

func newGroup(b *book) *group {
	g := &group{book: b}
	g.state.Store(&state{rotation: &rotation{}})
	g.due.Store(math.MaxInt64)
	return g
}

func (g *group) options() *Options { return &g.state.Load().options }

func (g *group) address(e Endpoint) address {
	a := address{network: g.options().Network, host: e.Host, addr: e.Addr}
	if e.Host != "" {
		a.addr = netip.AddrPortFrom(netip.Addr{}, e.Addr.Port())
	}
	return a
}

// configure changes the options. Members stay as they are, unless they are used by another network now.
func (g *group) configure(o Options) {
	g.mu.Lock()
	defer g.mu.Unlock()
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
		g.renew(old.members, nil)
		st.members = g.renew(nil, endpoints)
	}
	g.swapLocked(&st)
}

// replace makes endpoints, valid ones of distinct IDs, the members.
func (g *group) replace(endpoints []Endpoint, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	st := *g.state.Load()
	st.members = g.renew(st.members, endpoints)
	st.known = known
	g.swapLocked(&st)
}

// swapLocked puts a state in place, and has everything that follows from it follow.
func (g *group) swapLocked(st *state) {
	turns, least := st.rotation, st.least
	st.rotation, st.least, st.random, st.hash = nil, nil, nil, nil
	switch st.options.Policy {
	case PolicyLeastConnections:
		st.least = &leastConnections{members: st.members}
		if least != nil {
			st.least.clock.Store(least.clock.Load())
		}
	case PolicyRandomTwo:
		st.random = newRandomTwo(st.members)
	case PolicySourceHash:
		st.hash = newSourceHash(st.members)
	default:
		if st.rotation = turns; turns == nil {
			st.rotation = &rotation{}
		}
		st.rotation.replace(st.members)
	}
	switch {
	case st.options.Sticky <= 0:
		st.sticky = nil
	case st.sticky == nil:
		st.sticky = newStickyTable(maxSticky)
	}
	g.state.Store(st)
	g.recount()
}

// recount looks at the members' healths.
func (g *group) recount() {
	g.counting.Lock() // so that the last one to count has seen all
	st := g.state.Load()
	ejected, due, now := 0, int64(math.MaxInt64), g.book.now()
	ramped := int64(0)
	for _, m := range st.members {
		if m.health.until.Load() != 0 {
			ejected++
			due = min(due, m.health.due.Load())
		}
		if slow := int64(st.options.SlowStart); slow > 0 {
			if began := m.began(); began > 0 && began+slow > now {
				ramped = max(ramped, began+slow)
			}
		}
	}
	g.ejected.Store(int64(ejected))
	g.due.Store(due)
	g.ramped.Store(ramped)
	g.panicking.Store(st.options.panics(ejected, len(st.members)))
	g.counting.Unlock()
	g.hasRoom()
}

// began is when the member began to serve: when it joined, or was ejected no more. Zero: it always did.
func (m *Member) began() int64 { return max(m.joined, m.health.returned.Load()) }

// hasRoom is told whenever a use has ended, or something may be picked that could not be before.
func (g *group) hasRoom() {}

// next picks a member for a client.
func (g *group) next(src netip.Addr, tried *Tried) (*Member, error) {
	st := g.state.Load()
	if !st.known {
		return nil, ErrMissingServiceEntry
	}
	q := query{tried: tried, panicking: g.panicking.Load()}
	slow := g.ramped.Load() != 0
	if slow || st.sticky != nil {
		q.now = g.book.now()
	}
	if slow {
		q.slow = int64(st.options.SlowStart)
	}
	if tried.Len() > 0 {
		return g.another(st, src, &q)
	}
	g.firsts.Add(1)
	if !q.panicking && g.ejected.Load() > 0 {
		if m := g.trial(st); m != nil {
			return g.use(m), nil
		}
	}
	m := st.pick(src, &q)
	if m == nil && !q.panicking && st.options.panics(len(st.members), len(st.members)) {
		q.panicking = true // all have just been ejected, and that is not counted yet
		m = st.pick(src, &q)
	}
	if m == nil {
		return nil, ErrMissingEndpoints
	}
	return g.use(m), nil
}

// pick picks the member that the client is with already, or else asks the policy.
func (st *state) pick(src netip.Addr, q *query) *Member {
	if st.sticky == nil {
		return st.choose(src, q)
	}
	if m := st.sticky.get(src, q.now, int64(st.options.Sticky)); m != nil && !m.Left() && !q.tried.Has(m.ID) && q.admits(m) {
		return m
	}
	m := st.choose(src, q)
	if m != nil {
		st.sticky.put(src, m, q.now)
	}
	return m
}

// choose asks the policy.
func (st *state) choose(src netip.Addr, q *query) *Member {
	switch {
	case st.least != nil:
		return st.least.next(q)
	case st.random != nil:
		return st.random.next(q)
	case st.hash != nil:
		return st.hash.next(src, q)
	}
	return st.rotation.next(q)
}

// another picks a member for a client that has tried some in vain: of those that have not failed since they were last reached; else,
// as far as the budget goes, of those that are not ejected; and else of all, for to be refused is the worst that can happen to it.
func (g *group) another(st *state, src netip.Addr, q *query) (*Member, error) {
	q.panicking, q.calm = false, true
	if m := st.pick(src, q); m != nil {
		return g.use(m), nil
	}
	q.calm = false
	m := st.pick(src, q)
	if m == nil {
		q.panicking = true
		m = st.pick(src, q)
	}
	switch {
	case m == nil:
		return nil, ErrMissingEndpoints
	case !g.budget.spend(g.firsts.Load(), g.book.now()):
		return nil, ErrRetriesHeld
	}
	return g.use(m), nil
}

func (g *group) use(m *Member) *Member {
	m.open.Add(1)
	m.picks.Add(1)
	g.open.Add(1)
	return m
}

// trial returns an ejected member that it is time to try.
func (g *group) trial(st *state) *Member {
	now := g.book.now()
	if now < g.due.Load() {
		return nil
	}
	for _, m := range st.members {
		if m.health.until.Load() == 0 || now < m.health.due.Load() {
			continue
		}
		if t := m.health.try(now); t != nil {
			return &Member{m.Endpoint, m.tally, t}
		}
	}
	g.recount() // else somebody else was faster, and this is known at the next pick
	return nil
}

// A query is one pick as policies see it. It holds nothing that may be kept, so that it need not be allocated.
type query struct {
	tried     *Tried
	panicking bool  // ejected members may be picked
	calm      bool  // members that have failed since they were last reached may not
	slow      int64 // slow start; 0: no member is starting slowly
	now       int64 // with slow, and where clients stick
}

// admits tells whether m may serve, but for those tried.
func (q *query) admits(m *Member) bool {
	h := m.health
	if q.calm && h.troubled.Load() {
		return false
	}
	return q.panicking || h.until.Load() == 0
}

// leastShare is the share that an endpoint begins with when it starts slowly: with none it would never get anywhere.
const leastShare = 0.1

// share is how much of its weight m is worth now: 1, but while it starts slowly.
func (q *query) share(m *Member) float64 {
	if q.slow == 0 {
		return 1
	}
	began := m.began()
	if began == 0 || q.now >= began+q.slow {
		return 1
	}
	return max(leastShare, float64(q.now-began)/float64(q.slow))
}
