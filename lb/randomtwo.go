package lb

// randomTwo draws two members by weight, and picks the one with fewer open uses per weight. That is nearly as even as
// comparing all members, at the price of comparing two. Draws are random, so many balancers beside one another do not
// all pick the same member ("The power of two choices in randomized load balancing", Mitzenmacher, 2001).
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
