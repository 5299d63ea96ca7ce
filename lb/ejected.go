package lb

import (
	"container/heap"
	"time"
)

// An ejectedEntry is a member's entry in its group's heap of ejected members. The group's healthMu guards the entry.
type ejectedEntry struct {
	member    *Member // the member in the group's current state; nil: not in the state yet
	heapIndex int     // index in the group's ejectedMembers; negative: not ejected
	due       instant // when a pick should look at the member
}

// ejectedHeap holds the ejected members of a group. The heap is ordered by due.
type ejectedHeap []*Member

func (h ejectedHeap) Len() int           { return len(h) }
func (h ejectedHeap) Less(i, j int) bool { return h[i].entry.due < h[j].entry.due }

func (h ejectedHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].entry.heapIndex, h[j].entry.heapIndex = i, j
}

// Push implements heap.Interface.
func (h *ejectedHeap) Push(x any) {
	m := x.(*Member)
	m.entry.heapIndex = len(*h)
	*h = append(*h, m)
}

// Pop implements heap.Interface.
func (h *ejectedHeap) Pop() any {
	last := len(*h) - 1
	m := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	m.entry.heapIndex = -1
	return m
}

// reviewAll rebuilds the group's summary of its members' health. Call reviewAll after an update.
func (g *group) reviewAll() {
	g.healthMu.Lock() // lock before loading the state, so that the last of several calls sees the last state
	for _, m := range g.ejectedMembers {
		m.entry.heapIndex = -1
	}
	clear(g.ejectedMembers)
	g.ejectedMembers = g.ejectedMembers[:0]
	st, slowStartEnd := g.state.Load(), instant(0)
	for i, m := range st.members {
		m.entry.member = m
		m.index.Store(int32(i))
		st.roster.mark(i)
		slowStartEnd = max(slowStartEnd, g.slowStartEndOf(st, m.usage))
		if m.health.ejectedUntil.Load() != 0 {
			m.entry.due = m.health.due.Load()
			g.ejectedMembers.Push(m)
		}
	}
	heap.Init(&g.ejectedMembers)
	g.slowStartEnd.Store(slowStartEnd)
	g.publishHealthLocked(st)
	g.healthMu.Unlock()
	g.choicesChanged()
	g.serveQueue()
}

// review updates the group's summary for one member. Call review after the health of the member's address has changed.
// review does nothing for a standby endpoint, which is not a member.
func (g *group) review(u *usage) {
	if u.standby {
		return
	}
	g.healthMu.Lock()
	st, e := g.state.Load(), &u.entry
	ejected := e.member != nil && !u.left.Load() && u.health.ejectedUntil.Load() != 0
	switch {
	case ejected && e.heapIndex < 0:
		e.due = u.health.due.Load()
		heap.Push(&g.ejectedMembers, e.member)
	case ejected:
		e.due = u.health.due.Load()
		heap.Fix(&g.ejectedMembers, e.heapIndex)
	case e.heapIndex >= 0:
		heap.Remove(&g.ejectedMembers, e.heapIndex)
	}
	st.roster.mark(int(u.index.Load()))
	if end := g.slowStartEndOf(st, u); end > g.slowStartEnd.Load() {
		g.slowStartEnd.Store(end)
	}
	g.publishHealthLocked(st)
	g.healthMu.Unlock()
	g.choicesChanged()
	g.serveQueue()
}

// slowStartEndOf returns when a member's slow start ends. slowStartEndOf returns zero if the member is not in a slow
// start.
func (g *group) slowStartEndOf(st *state, u *usage) instant {
	since, slow := u.servesSince(), st.options.SlowStart
	if slow == 0 || since == 0 || since.add(slow) <= g.registry.clock.now() {
		return 0
	}
	return since.add(slow)
}

// publishHealthLocked updates the atomics that picks read. Call it after ejectedMembers has changed.
func (g *group) publishHealthLocked(st *state) {
	due := distantFuture
	if len(g.ejectedMembers) > 0 {
		due = g.ejectedMembers[0].entry.due
	}
	g.nextDue.Store(due)
	g.ejectedCount.Store(int64(len(g.ejectedMembers)))
	g.panicking.Store(st.options.panics(len(g.ejectedMembers), len(st.members)))
	g.weighZonesLocked(st)
}

// maxTrialLooks limits how many ejected members one pick examines to find a member to try.
const maxTrialLooks = 16

// fullRetryAfter is how long picks skip an ejected member that is due for a trial, but has no free use.
const fullRetryAfter = 100 * time.Millisecond

// pickTrial returns an ejected member that is due for a trial. The use of the returned Member is the trial. pickTrial
// returns nil if no member is due.
func (g *group) pickTrial(q *query) *Member {
	now := g.registry.clock.now()
	for range maxTrialLooks {
		if now < g.nextDue.Load() {
			return nil
		}
		m := g.peekDue(now, q)
		if m == nil {
			continue
		}
		if trial := m.health.beginTrial(now); trial != nil {
			return &Member{m.Endpoint, m.usage, trial, m.zone}
		}
		g.review(m.usage) // another pick has begun the trial
	}
	return nil
}

// peekDue returns the ejected member that is due first. peekDue returns nil if none is due any more, because another
// pick was faster. If the member is full, peekDue returns nil, and makes the member due again after fullRetryAfter.
func (g *group) peekDue(now instant, q *query) *Member {
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
