package lb

import (
	"math/rand/v2"
	"sort"
)

// randomTwo draws two members, by weight, and picks the one with fewer open uses for its weight. It is nearly as even as to look at
// all, for the price of looking at two; and as it has no order, many balancers beside one another do not all come to the same
// member ("The power of two choices in randomized load balancing", Mitzenmacher, 2001).
type randomTwo struct {
	members []*Member
	sums    []int // of the weights up to and with each member
}

func newRandomTwo(members []*Member) *randomTwo {
	r := &randomTwo{members: members, sums: make([]int, len(members))}
	sum := 0
	for i, m := range members {
		sum += m.Weight
		r.sums[i] = sum
	}
	return r
}

// draws is how often a draw that may not serve is made again. After that the members are looked at one after another.
const draws = 8

func (r *randomTwo) next(q *query) *Member {
	a := r.draw(q, nil)
	if a == nil {
		return nil
	}
	b := r.draw(q, a)
	if b == nil || a.open.Load()*int64(b.Weight) <= b.open.Load()*int64(a.Weight) {
		return a
	}
	return b
}

// draw returns a member that may serve, other than not; or nil if there is none.
func (r *randomTwo) draw(q *query, not *Member) *Member {
	if len(r.members) == 0 {
		return nil
	}
	total := r.sums[len(r.sums)-1]
	for range draws {
		n := rand.IntN(total)
		m := r.members[sort.Search(len(r.sums), func(i int) bool { return r.sums[i] > n })]
		if r.may(m, q, not) && (q.slow == 0 || rand.Float64() < q.share(m)) {
			return m
		}
	}
	from := rand.IntN(len(r.members))
	for i := range r.members {
		if m := r.members[(from+i)%len(r.members)]; r.may(m, q, not) {
			return m
		}
	}
	return nil
}

func (r *randomTwo) may(m *Member, q *query, not *Member) bool {
	return m != not && !q.avoids(m) && q.admits(m)
}
