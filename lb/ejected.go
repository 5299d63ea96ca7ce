package lb

import (
	"container/heap"
	"math"
)

// A standing is how a member counts in what its group knows of the members' healths. The group's counting guards all
// but at.
type standing struct {
	member *Member // as it is in the group's present state; nil: it is not in it yet
	place  int     // in the group's outs; negative: it is not ejected
	due    int64   // when it should be looked at, if it is ejected
}

// outs are the ejected members of a group, a heap by due.
type outs []*Member

func (o outs) Len() int           { return len(o) }
func (o outs) Less(i, j int) bool { return o[i].standing.due < o[j].standing.due }

func (o outs) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].standing.place, o[j].standing.place = i, j
}

// Push implements heap.Interface.
func (o *outs) Push(x any) {
	m := x.(*Member)
	m.standing.place = len(*o)
	*o = append(*o, m)
}

// Pop implements heap.Interface.
func (o *outs) Pop() any {
	last := len(*o) - 1
	m := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	m.standing.place = -1
	return m
}

// recount looks at the healths of all members, after an update.
func (g *group) recount() {
	g.counting.Lock() // so that the last one to count has seen all
	for _, m := range g.outs {
		m.standing.place = -1
	}
	clear(g.outs)
	g.outs = g.outs[:0]
	st, ramped := g.state.Load(), int64(0)
	for i, m := range st.members {
		m.standing.member = m
		m.at.Store(int32(i))
		st.roster.note(i)
		ramped = max(ramped, g.slowUntil(st, m.tally))
		if m.health.until.Load() != 0 {
			m.standing.due = m.health.due.Load()
			g.outs.Push(m)
		}
	}
	heap.Init(&g.outs)
	g.ramped.Store(ramped)
	g.countedLocked(st)
	g.counting.Unlock()
	g.hasRoom()
}

// review looks at the health of one member, after that has changed.
func (g *group) review(t *tally) {
	g.counting.Lock()
	st, s := g.state.Load(), &t.standing
	out := s.member != nil && !t.left.Load() && t.health.until.Load() != 0
	switch {
	case out && s.place < 0:
		s.due = t.health.due.Load()
		heap.Push(&g.outs, s.member)
	case out:
		s.due = t.health.due.Load()
		heap.Fix(&g.outs, s.place)
	case s.place >= 0:
		heap.Remove(&g.outs, s.place)
	}
	st.roster.note(int(t.at.Load()))
	if slow := g.slowUntil(st, t); slow > g.ramped.Load() {
		g.ramped.Store(slow)
	}
	g.countedLocked(st)
	g.counting.Unlock()
	g.hasRoom()
}

// slowUntil is until when a member starts slowly; zero: it does not.
func (g *group) slowUntil(st *state, t *tally) int64 {
	began, slow := t.began(), int64(st.options.SlowStart)
	if slow == 0 || began == 0 || began+slow <= g.book.now() {
		return 0
	}
	return began + slow
}

// countedLocked notes what the outs come to.
func (g *group) countedLocked(st *state) {
	due := int64(math.MaxInt64)
	if len(g.outs) > 0 {
		due = g.outs[0].standing.due
	}
	g.due.Store(due)
	g.ejected.Store(int64(len(g.outs)))
	g.panicking.Store(st.options.panics(len(g.outs), len(st.members)))
}

// began is when the member began to serve: when it joined, or was ejected no more. Zero: it always did.
func (t *tally) began() int64 { return max(t.joined, t.health.returned.Load()) }

// trialLooks is how many ejected members one pick looks at to find one to try.
const trialLooks = 16

// fullPause is how long an ejected member without room is not looked at, in nanoseconds.
const fullPause = 100e6

// trial returns an ejected member that it is time to try.
func (g *group) trial(q *query) *Member {
	now := g.book.now()
	for range trialLooks {
		if now < g.due.Load() {
			return nil
		}
		m := g.nextDue(now, q)
		if m == nil {
			continue
		}
		if t := m.health.try(now); t != nil {
			return &Member{m.Endpoint, m.tally, t}
		}
		g.review(m.tally) // somebody else was faster
	}
	return nil
}

// nextDue returns the ejected member that should be looked at first, if it is time to; nil if it has no room, or
// another pick was faster.
func (g *group) nextDue(now int64, q *query) *Member {
	g.counting.Lock()
	defer g.counting.Unlock()
	if len(g.outs) == 0 || g.outs[0].standing.due > now {
		return nil
	}
	m := g.outs[0]
	if q.room(m) {
		return m
	}
	m.standing.due = now + fullPause
	heap.Fix(&g.outs, 0)
	g.due.Store(g.outs[0].standing.due)
	return nil
}
