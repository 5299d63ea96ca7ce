package lb

import (
	"math"
	"sync/atomic"
)

// leastConnections picks the member with the fewest open uses per unit of weight. A pick compares all members without a
// lock, so counts may change during the pick. Two concurrent picks may take the same member; the next picks make up for
// it.
//
// With more than manyMembers members, a pick compares only sampleSize members, which it draws by weight. In 29 of 30
// picks the result is among the tenth of all members with the fewest uses. A new member then fills up gradually,
// instead of taking all the next picks.
//
// Members with equal counts take turns by weight. Without turns, short connections would all go to the first member.
// The turns follow start-time fair queuing (Goyal, Vin and Cheng, 1996). Each tie that a member wins moves the member's
// finish time on by the inverse of its weight, and the member with the earliest start time wins a tie. A member that
// joins late starts at most one turn behind the virtual time, so that it does not win many ties in a row.
type leastConnections struct {
	*roster
	virtualTime atomic.Uint64 // start time of the last tie; the bits of a float64
}

// sampleSize is how many members a pick compares in a set of more than manyMembers.
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

// A candidate is the best member so far in a pick of leastConnections.
type candidate struct {
	*Member
	load        float64 // open uses per unit of weight
	start, step float64 // virtual time at which the member's tie starts, and how long it takes
	virtualTime float64
}

// compare makes m the candidate if m may serve and is better than the current candidate.
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
