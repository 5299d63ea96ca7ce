package lb

// randomTwo draws two members by weight, and picks the member with fewer open uses per unit of weight. The result is
// nearly as even as that of comparing all members. Draws are random, so independent balancers do not all pick the same
// member ("The power of two choices in randomized load balancing", Mitzenmacher, 2001).
type randomTwo struct{ *roster }

func (r randomTwo) pick(q *query) *Member {
	a := r.sample(q, nil)
	if a == nil {
		return nil
	}
	b := r.sample(q, a)
	if b == nil || a.open.Load()*int64(b.Weight) <= b.open.Load()*int64(a.Weight) {
		return a
	}
	return b
}
