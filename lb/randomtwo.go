package lb

// randomTwo draws two members, by weight, and picks the one with fewer open uses for its weight. It is nearly as
// even as to look at all, for the price of looking at two; and as it has no order, many balancers beside one another
// do not all come to the same member ("The power of two choices in randomized load balancing", Mitzenmacher, 2001).
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
