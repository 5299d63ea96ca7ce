package lb

import (
	"container/heap"
	"time"
)

// An ejectedEntry is a member's entry in its group's heap of ejected members. The group's healthMu guards it.
type ejectedEntry struct {
	member    *Member // as it is in the group's present state; nil: it is not in it yet
	heapIndex int     // in the group's ejectedMembers; negative: it is not ejected
	due       instant // when it should be looked at, if it is ejected
}

// ejectedHeap are the ejected members of a group, a heap by due.
type ejectedHeap []*Member

func (o ejectedHeap) Len() int           { return len(o) }
func (o ejectedHeap) Less(i, j int) bool { return o[i].entry.due < o[j].entry.due }

func (o ejectedHeap) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].entry.heapIndex, o[j].entry.heapIndex = i, j
}

// Push implements heap.Interface.
func (o *ejectedHeap) Push(x any) {
	m := x.(*Member)
	m.entry.heapIndex = len(*o)
	*o = append(*o, m)
}

// Pop implements heap.Interface.
func (o *ejectedHeap) Pop() any {
	last := len(*o) - 1
	m := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	m.entry.heapIndex = -1
	return m
}

// reviewAll looks at the healths of all members, after an update.
func (g *group) reviewAll() {
	g.healthMu.Lock() // so that the last one to count has seen all
	for _, m := range g.ejectedMembers {
		m.entry.heapIndex = -1
	}
	clear(g.ejectedMembers)
	g.ejectedMembers = g.ejectedMembers[:0]
	st, ramped := g.state.Load(), instant(0)
	for i, m := range st.members {
		m.entry.member = m
		m.index.Store(int32(i))
		st.roster.mark(i)
		ramped = max(ramped, g.slowStartEndOf(st, m.usage))
		if m.health.ejectedUntil.Load() != 0 {
			m.entry.due = m.health.due.Load()
			g.ejectedMembers.Push(m)
		}
	}
	heap.Init(&g.ejectedMembers)
	g.slowStartEnd.Store(ramped)
	g.publishHealthLocked(st)
	g.healthMu.Unlock()
	g.serveQueue()
}

// review looks at the health of one member, after that has changed.
func (g *group) review(t *usage) {
	g.healthMu.Lock()
	st, s := g.state.Load(), &t.entry
	out := s.member != nil && !t.left.Load() && t.health.ejectedUntil.Load() != 0
	switch {
	case out && s.heapIndex < 0:
		s.due = t.health.due.Load()
		heap.Push(&g.ejectedMembers, s.member)
	case out:
		s.due = t.health.due.Load()
		heap.Fix(&g.ejectedMembers, s.heapIndex)
	case s.heapIndex >= 0:
		heap.Remove(&g.ejectedMembers, s.heapIndex)
	}
	st.roster.mark(int(t.index.Load()))
	if slow := g.slowStartEndOf(st, t); slow > g.slowStartEnd.Load() {
		g.slowStartEnd.Store(slow)
	}
	g.publishHealthLocked(st)
	g.healthMu.Unlock()
	g.serveQueue()
}

// slowStartEndOf is until when a member starts slowly; zero: it does not.
func (g *group) slowStartEndOf(st *state, t *usage) instant {
	began, slow := t.servesSince(), st.options.SlowStart
	if slow == 0 || began == 0 || began.add(slow) <= g.registry.clock.now() {
		return 0
	}
	return began.add(slow)
}

// publishHealthLocked publishes what picks read of the ejected members.
func (g *group) publishHealthLocked(st *state) {
	due := distantFuture
	if len(g.ejectedMembers) > 0 {
		due = g.ejectedMembers[0].entry.due
	}
	g.nextDue.Store(due)
	g.ejectedCount.Store(int64(len(g.ejectedMembers)))
	g.panicking.Store(st.options.panics(len(g.ejectedMembers), len(st.members)))
}

// servesSince is when the member began to serve: when it joined, or was ejected no more. Zero: it always did.
func (t *usage) servesSince() instant { return max(t.joined, t.health.returnedAt.Load()) }

// maxTrialLooks is how many ejected members one pick looks at to find one to try.
const maxTrialLooks = 16

// fullRetryAfter is how long an ejected member without room is not looked at, in nanoseconds.
const fullRetryAfter = 100 * time.Millisecond

// pickTrial returns an ejected member that it is time to try.
func (g *group) pickTrial(q *query) *Member {
	now := g.registry.clock.now()
	for range maxTrialLooks {
		if now < g.nextDue.Load() {
			return nil
		}
		m := g.popDue(now, q)
		if m == nil {
			continue
		}
		if t := m.health.beginTrial(now); t != nil {
			return &Member{m.Endpoint, m.usage, t}
		}
		g.review(m.usage) // somebody else was faster
	}
	return nil
}

// popDue returns the ejected member that should be looked at first, if it is time to; nil if it has no room, or
// another pick was faster.
func (g *group) popDue(now instant, q *query) *Member {
	g.healthMu.Lock()
	defer g.healthMu.Unlock()
	if len(g.ejectedMembers) == 0 || g.ejectedMembers[0].entry.due > now {
		return nil
	}
	m := g.ejectedMembers[0]
	if q.hasRoom(m) {
		return m
	}
	m.entry.due = now.add(fullRetryAfter)
	heap.Fix(&g.ejectedMembers, 0)
	g.nextDue.Store(g.ejectedMembers[0].entry.due)
	return nil
}
