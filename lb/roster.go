package lb

import (
	"math/rand/v2"
	"sync"
)

// manyMembers is the largest set in which one pick may examine all members one by one. Larger sets have tables and
// marks, so that a pick takes a few microseconds at most.
const manyMembers = 256

// maxDraws is how many members a pick draws by weight. If none of them may serve, the pick searches all members.
const maxDraws = 8

// maxExamined limits how many marked members a search examines. Unless nearly all endpoints fail, most marked members
// may serve.
const maxExamined = 64

// A roster is the set of members of a service between two updates. A roster finds members that may serve, in no order.
//
// In a set of more than manyMembers, bitmaps mark the members that may serve. For a moment after a use or an ejection,
// a mark may be out of date. A pick therefore also examines each marked member itself.
type roster struct {
	group   *group
	members []*Member

	// A guide table for draws by weight; nil if all weights are equal. sums[i] is the total weight of the members 0 to
	// i. For a number below the total weight, the search in sums begins at index guide[number*len/total].
	sums  []int
	guide []int32

	room  *bitmap // members that may have one more use; nil in small sets
	ready *bitmap // members in room that are not ejected; nil in small sets

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
		r.room, r.ready = fullBitmap(len(members)), fullBitmap(len(members)) // until reviewAll has examined all members
	}
	return r
}

// isLarge reports whether the roster has more than manyMembers members.
func (r *roster) isLarge() bool { return len(r.members) > manyMembers }

// buildTables builds the guide table: sums and guide.
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

// draw returns a random member. The probability of a member is proportional to its weight. The roster must not be
// empty.
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

// sample returns a random member that may serve and is not except; except may be nil. sample draws by weight. If
// maxDraws draws find no such member, sample searches all members. sample returns nil if no member may serve.
func (r *roster) sample(q *query, except *Member) *Member {
	if len(r.members) == 0 {
		return nil
	}
	for range maxDraws {
		m := r.draw()
		if q.serves(m, except) && (q.isPlain() || rand.Float64() < q.share(m)) {
			return m
		}
	}
	return r.search(q, except)
}

// search returns a member that may serve and is not except, regardless of weights. The search begins at a random
// member. search returns nil if no member may serve.
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

// searchMarks searches the marked members in order, beginning at index first.
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

// marks returns the marks of the members that may serve in q. healthy is how many members would be marked if none were
// full.
func (r *roster) marks(q *query) (marks *bitmap, healthy int64) {
	if q.panicking {
		return r.room, int64(len(r.members))
	}
	return r.ready, int64(len(r.members)) - r.group.ejectedCount.Load()
}

// scarce reports whether very few of many members may serve, so that a search is cheaper than draws or turns.
func (r *roster) scarce(q *query) bool {
	if !r.isLarge() {
		return false
	}
	marks, _ := r.marks(q)
	return marks.count.Load() < int64(len(r.members)/16)
}

// mark updates the marks of the member at index. Call mark after the member's open uses or health have changed.
//
// mark may be called concurrently. A call that clears a mark checks the member once more afterwards, and sets the mark
// again if the member may serve. A member that may serve therefore never stays unmarked.
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
