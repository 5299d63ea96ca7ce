package lb

import (
	"math"
	"sync/atomic"
)

// leastConnections picks the member with the fewest open uses for its weight. It looks at all of them, without a lock: the counts
// change under its eyes, and two picks at the same instant may take the same one, which the next picks make good.
//
// Ties rotate by weight, or short connections would all go to the first member: each has a clock that a pick moves on by the inverse of
// its weight, and the one that is most behind takes the tie (start-time fair queuing, Goyal, Vin and Cheng, 1996). Who comes in
// late is behind by one turn at most, so that it gets no burst of ties.
type leastConnections struct {
	members []*Member
	clock   atomic.Uint64 // of the last tie; the bits of a float64
}

func (l *leastConnections) next(q *query) *Member {
	clock := math.Float64frombits(l.clock.Load())
	var best *Member
	var load, turn, step float64
	for _, m := range l.members {
		if q.avoids(m) || !q.admits(m) {
			continue
		}
		weight := float64(m.Weight) * q.share(m)
		n := float64(m.open.Load()) / weight
		if best != nil && n > load {
			continue
		}
		t := max(m.owed(), clock-1/weight)
		if best == nil || n < load || t < turn {
			best, load, turn, step = m, n, t, 1/weight
		}
	}
	if best != nil {
		best.setOwed(turn + step)
		l.clock.Store(math.Float64bits(max(clock, turn)))
	}
	return best
}
