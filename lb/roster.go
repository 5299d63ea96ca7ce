package lb

import (
	"math/rand/v2"
	"sync"
)

// manyMembers is the most members that one pick looks at one after another. Services with more have tables and marks,
// so that a pick costs some microseconds at most, whatever their number.
const manyMembers = 256

// maxDraws is how often a draw that may not serve is made again before the members are searched.
const maxDraws = 8

// maxExamined is how many marked members a search looks at. Few of them cannot serve after all, unless nearly all
// endpoints fail.
const maxExamined = 64

// A roster is the members of a service between two updates. It finds some that may serve, in no order.
//
// In a set of more than manyMembers, bitmaps mark those that may serve. The marks follow uses and ejections a moment
// later, so whoever finds a marked member looks at the member itself, too.
type roster struct {
	group   *group
	members []*Member

	// For draws by weight; nil if all weights are equal. sums are the weights up to and with each member. Of a number
	// below the total, guide says where in sums the search for it begins: at place number*len/total.
	sums  []int
	guide []int32

	room  *bitmap // members with room for one more use; nil in small sets
	ready *bitmap // of those, the ones that are not ejected; nil in small sets

	byID func() map[string]*Member // made when it is first called
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
		r.room, r.ready = fullBitmap(len(members)), fullBitmap(len(members)) // until recount has seen all
	}
	return r
}

func (r *roster) isLarge() bool { return len(r.members) > manyMembers }

// buildTables makes the tables for draws by weight.
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

// draw returns a member, each as often as its weight says. There must be one.
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

// take returns a member that may serve, other than not: one that is drawn by weight, if a few draws find one. It
// returns nil if there is none.
func (r *roster) sample(q *query, not *Member) *Member {
	if len(r.members) == 0 {
		return nil
	}
	for range maxDraws {
		m := r.draw()
		if q.serves(m, not) && (q.slowStart == 0 || rand.Float64() < q.share(m)) {
			return m
		}
	}
	return r.search(q, not)
}

// search returns a member that may serve, other than not, without regard to weights; nil if there is none.
func (r *roster) search(q *query, not *Member) *Member {
	n := len(r.members)
	if n == 0 {
		return nil
	}
	from := rand.IntN(n)
	if r.isLarge() {
		return r.searchMarks(q, not, from)
	}
	for i := range n {
		if m := r.members[(from+i)%n]; q.serves(m, not) {
			return m
		}
	}
	return nil
}

// searchMarks is search by the marks, in the order of the members, beginning at place from.
func (r *roster) searchMarks(q *query, not *Member, from int) *Member {
	marks, fit := r.marks(q)
	looks := 0
	for _, part := range [2][2]int{{from, len(r.members)}, {0, from}} {
		for i := marks.nextSet(part[0]); i >= 0 && i < part[1] && looks < maxExamined; i = marks.nextSet(i + 1) {
			if m := r.members[i]; q.serves(m, not) {
				return m
			}
			looks++
		}
	}
	q.sawFull = q.sawFull || q.maxOpen > 0 && fit > marks.count.Load()
	return nil
}

// marks are those of the members that may serve in q, and how many there would be if all had room.
func (r *roster) marks(q *query) (marks *bitmap, fit int64) {
	if q.panicking {
		return r.room, int64(len(r.members))
	}
	return r.ready, int64(len(r.members)) - r.group.ejectedCount.Load()
}

// scarce reports whether so few of many members may serve that it is better to search for one than to let turns pass.
func (r *roster) scarce(q *query) bool {
	if !r.isLarge() {
		return false
	}
	marks, _ := r.marks(q)
	return marks.count.Load() < int64(len(r.members)/16)
}

// mark marks the member at a place anew. It is to be called after the member's room or health has changed. Of several
// calls at once, the last to write the mark of a member that may serve again also sees that it may: so a mark that is
// missing never stays.
func (r *roster) mark(at int) {
	if !r.isLarge() || at >= len(r.members) {
		return
	}
	m, most := r.members[at], int64(r.group.options().MaxPerEndpoint)
	room := func() bool { return most == 0 || m.open.Load() < most }
	for _, mark := range []struct {
		in *bitmap
		is func() bool
	}{{r.room, room}, {r.ready, func() bool { return room() && m.health.ejectedUntil.Load() == 0 }}} {
		is := mark.is()
		mark.in.set(at, is)
		if !is && mark.is() {
			mark.in.set(at, true)
		}
	}
}
