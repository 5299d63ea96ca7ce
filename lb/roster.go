package lb

import (
	"math/rand/v2"
	"sync"
)

// manyMembers is the largest number of members that one pick examines one after another. Larger services have tables
// and marks, so that a pick takes some microseconds at most.
const manyMembers = 256

// maxDraws is how many members a pick draws by weight before it searches all members for one that may serve.
const maxDraws = 8

// maxExamined bounds how many marked members a search examines. Most of them may serve, unless nearly all endpoints
// fail.
const maxExamined = 64

// A roster is the members of a service between two updates. It finds members that may serve, in no order.
//
// In a set of more than manyMembers, bitmaps mark the members that may serve. A mark lags behind uses and ejections by
// a moment. So a pick that finds a marked member examines the member itself too.
type roster struct {
	group   *group
	members []*Member

	// A guide table for draws by weight; nil if all weights are equal. sums[i] is the weight of members 0 to i. The
	// search for a number below the total begins in sums at index guide[number*len/total].
	sums  []int
	guide []int32

	room  *bitmap // members with room for one more use; nil in small sets
	ready *bitmap // those of room that are not ejected; nil in small sets

	byID func() map[string]*Member // builds the map at the first call
}

func newRoster(g *group, members []*Member) *roster {
	r := &roster{group: g, members: members}
	r.byID = sync.OnceValue(func() map[string]*Member {
		all := make(map[string]*Member, len(members))
		for _, m := range members {
			all[m.ID] = m
		}
		return all
	})
	for _, m := range members {
		if m.Weight != members[0].Weight {
			r.buildTables()
			break
		}
	}
	if r.isLarge() {
		r.room, r.ready = fullBitmap(len(members)), fullBitmap(len(members)) // until reviewAll has seen all
	}
	return r
}

// isLarge reports whether there are more than manyMembers.
func (r *roster) isLarge() bool { return len(r.members) > manyMembers }

// buildTables builds sums and guide.
func (r *roster) buildTables() {
	n := len(r.members)
	r.sums, r.guide = make([]int, n), make([]int32, n)
	total := 0
	for i, m := range r.members {
		total += m.Weight
		r.sums[i] = total
	}
	i := 0
	for j := range r.guide {
		for r.sums[i] <= j*total/n {
			i++
		}
		r.guide[j] = int32(i)
	}
}

// draw returns a random member, with a probability in proportion to its weight. There must be at least one.
func (r *roster) draw() *Member {
	n := len(r.members)
	if r.sums == nil {
		return r.members[rand.IntN(n)]
	}
	total := r.sums[n-1]
	number := rand.IntN(total)
	i := r.guide[number*n/total]
	for r.sums[i] <= number {
		i++
	}
	return r.members[i]
}

// sample returns a member that may serve, other than except, which may be nil. It draws by weight. If maxDraws draws
// find no such member, it searches. It returns nil if there is none.
func (r *roster) sample(q *query, except *Member) *Member {
	if len(r.members) == 0 {
		return nil
	}
	for range maxDraws {
		m := r.draw()
		if q.serves(m, except) && (q.slowStart == 0 || rand.Float64() < q.share(m)) {
			return m
		}
	}
	return r.search(q, except)
}

// search returns a member that may serve, other than except, regardless of weights. It begins at a random member, and
// returns nil if there is none.
func (r *roster) search(q *query, except *Member) *Member {
	n := len(r.members)
	if n == 0 {
		return nil
	}
	first := rand.IntN(n)
	if r.isLarge() {
		return r.searchMarks(q, except, first)
	}
	for i := range n {
		if m := r.members[(first+i)%n]; q.serves(m, except) {
			return m
		}
	}
	return nil
}

// searchMarks searches the marked members, in order, beginning at index first.
func (r *roster) searchMarks(q *query, except *Member, first int) *Member {
	marks, healthy := r.marks(q)
	examined := 0
	for _, part := range [2][2]int{{first, len(r.members)}, {0, first}} {
		for i := marks.nextSet(part[0]); i >= 0 && i < part[1] && examined < maxExamined; i = marks.nextSet(i + 1) {
			if m := r.members[i]; q.serves(m, except) {
				return m
			}
			examined++
		}
	}
	q.sawFull = q.sawFull || q.maxOpen > 0 && healthy > marks.count.Load()
	return nil
}

// marks returns the marks of the members that may serve in q, and how many there would be if no member were full.
func (r *roster) marks(q *query) (marks *bitmap, healthy int64) {
	if q.panicking {
		return r.room, int64(len(r.members))
	}
	return r.ready, int64(len(r.members)) - r.group.ejectedCount.Load()
}

// scarce reports whether so few of many members may serve that a search is cheaper than to draw or to let turns pass.
func (r *roster) scarce(q *query) bool {
	if !r.isLarge() {
		return false
	}
	marks, _ := r.marks(q)
	return marks.count.Load() < int64(len(r.members)/16)
}

// mark sets the marks of the member at index. Call it after the member's open uses or health have changed.
//
// Calls may be concurrent. The call that clears a mark checks again afterwards whether the member may serve. So a
// member that may serve does not stay without its mark.
func (r *roster) mark(index int) {
	if !r.isLarge() || index >= len(r.members) {
		return
	}
	m, limit := r.members[index], int64(r.group.options().MaxPerEndpoint)
	hasRoom := func() bool { return limit == 0 || m.open.Load() < limit }
	isReady := func() bool { return hasRoom() && m.health.ejectedUntil.Load() == 0 }
	for _, mark := range []struct {
		bitmap *bitmap
		isSet  func() bool
	}{{r.room, hasRoom}, {r.ready, isReady}} {
		isSet := mark.isSet()
		mark.bitmap.set(index, isSet)
		if !isSet && mark.isSet() {
			mark.bitmap.set(index, true)
		}
	}
}
