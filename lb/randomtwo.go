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
	if b == nil {
		return a
	}
	weightA, weightB := float64(a.Weight), float64(b.Weight)
	if q.leaves {
		weightA, weightB = weightA*a.farPart(), weightB*b.farPart()
	}
	if float64(a.open.Load())*weightB <= float64(b.open.Load())*weightA {
		return a
	}
	return b
}
