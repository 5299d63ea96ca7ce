package lb

import (
	"math"
	"sync/atomic"
)

// leastConnections picks the member with the fewest open uses per weight. It compares all members without a lock. So
// counts change meanwhile, and two concurrent picks may take the same member; the next picks make up for it.
//
// Of more than manyMembers it compares sampleSize members drawn by weight. In 29 of 30 picks the result is among the
// tenth of all members with the fewest uses. A new member fills up gradually, instead of taking all the next picks.
//
// Ties rotate by weight; otherwise short connections would all go to the first member. They rotate by start-time fair
// queuing (Goyal, Vin and Cheng, 1996). Each tie that a member takes moves its finish time on by the inverse of its
// weight, and the member with the earliest start time takes the tie. A member that joins late starts at most one turn
// behind the virtual time, so that it gets no burst of ties.
type leastConnections struct {
	*roster
	virtualTime atomic.Uint64 // start of the last tie; the bits of a float64
}

// sampleSize is how many of more than manyMembers a pick compares.
const sampleSize = 32

func (l *leastConnections) pick(q *query) *Member {
	best := candidate{virtualTime: math.Float64frombits(l.virtualTime.Load())}
	if !l.isLarge() {
		for _, m := range l.members {
			best.compare(m, q)
		}
	} else if !l.scarce(q) {
		for range sampleSize {
			best.compare(l.draw(), q)
		}
	}
	if best.Member == nil && l.isLarge() {
		if m := l.search(q, nil); m != nil {
			best.compare(m, q)
		}
	}
	if best.Member != nil {
		best.setFinish(best.start + best.step)
		l.virtualTime.Store(math.Float64bits(max(best.virtualTime, best.start)))
	}
	return best.Member
}

// A candidate is the best member that a pick of leastConnections has compared so far.
type candidate struct {
	*Member
	load        float64 // open uses per weight
	start, step float64 // virtual time at which its tie starts, and that it takes
	virtualTime float64
}

// compare makes m the candidate if m is better and may serve.
func (c *candidate) compare(m *Member, q *query) {
	q.examined++
	weight := float64(m.Weight) * q.share(m)
	load := float64(m.open.Load()) / weight
	if c.Member != nil && load > c.load {
		return
	}
	start := max(m.finish(), c.virtualTime-1/weight)
	if (c.Member == nil || load < c.load || start < c.start) && q.serves(m, nil) {
		c.Member, c.load, c.start, c.step = m, load, start, 1/weight
	}
}
