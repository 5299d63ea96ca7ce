package lb

import (
	"math"
	"sync/atomic"
)

// leastConnections picks the member with the fewest open uses for its weight. It looks at all of them, without a
// lock: the counts change under its eyes, and two picks at the same instant may take the same one, which the next
// picks make good.
//
// Of more than manyMembers it looks at sampleSize that are drawn by weight, and picks the one with the fewest. In 29 of
// 30 picks that one is among the tenth of all with the fewest. A member that comes in empty fills up by and by, rather
// than by all the next picks.
//
// Ties rotate by weight, or short connections would all go to the first member: each has a clock that a pick moves on
// by the inverse of its weight, and the one that is most behind takes the tie (start-time fair queuing, Goyal, Vin and
// Cheng, 1996). A member that comes in late is behind by one turn at most, so that it gets no burst of ties.
type leastConnections struct {
	*roster
	virtualTime atomic.Uint64 // of the last tie; the bits of a float64
}

// sampleSize is how many of many members are compared.
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

// A candidate is the best member that a pick of leastConnections has seen so far.
type candidate struct {
	*Member
	load, start, step float64
	virtualTime       float64
}

// compare makes m the candidate if it is better and may serve.
func (c *candidate) compare(m *Member, q *query) {
	q.examined++
	weight := float64(m.Weight) * q.share(m)
	load := float64(m.open.Load()) / weight
	if c.Member != nil && load > c.load {
		return
	}
	turn := max(m.finish(), c.virtualTime-1/weight)
	if (c.Member == nil || load < c.load || turn < c.start) && q.serves(m, nil) {
		c.Member, c.load, c.start, c.step = m, load, turn, 1/weight
	}
}
