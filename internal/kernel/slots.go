package kernel

import "slices"

// maxTurns limits the slots of one service. Larger sums of weights are scaled down to it.
const maxTurns = 1 << 14

// turns returns the order in which endpoints with these weights take turns: indexes into weights, each as often as its
// weight says, evenly spread. Weights with a common divisor need fewer turns. With equal weights, the order is that of
// weights.
func turns(weights []int) []int32 {
	weights = reduce(weights)
	total := 0
	for _, w := range weights {
		total += w
	}
	if total == len(weights) {
		order := make([]int32, total)
		for i := range order {
			order[i] = int32(i)
		}
		return order
	}
	// The k-th turn of a weight w is due at (2k+1)/2w of the round. Turns are sorted by the slot in which they are due;
	// within a slot, the order of weights decides.
	count := make([]int32, total+1)
	each := func(f func(i, slot int)) {
		for i, w := range weights {
			for k := range w {
				f(i, (2*k+1)*total/(2*w))
			}
		}
	}
	each(func(_, slot int) { count[slot+1]++ })
	for i := range total {
		count[i+1] += count[i]
	}
	order := make([]int32, total)
	each(func(i, slot int) {
		order[count[slot]] = int32(i)
		count[slot]++
	})
	return order
}

// reduce divides weights by their greatest common divisor, and scales them so that their sum is at most about maxTurns.
// Each result is at least 1.
func reduce(weights []int) []int {
	weights = slices.Clone(weights)
	total, divisor := 0, 0
	for i, w := range weights {
		weights[i] = max(w, 1)
		total += weights[i]
		divisor = gcd(divisor, weights[i])
	}
	for i := range weights {
		weights[i] /= divisor
	}
	if total /= max(divisor, 1); total > maxTurns {
		for i, w := range weights {
			weights[i] = max(1, int(float64(w)/float64(total)*maxTurns+0.5))
		}
	}
	return weights
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// extents gives out parts of an array. The zero value has none to give.
type extents struct {
	free []extent // ordered by first; never adjacent
}

type extent struct{ first, count uint32 }

// take returns a part of count elements. It returns false if there is none.
func (e *extents) take(count uint32) (extent, bool) {
	for i, f := range e.free {
		if f.count < count {
			continue
		}
		if f.count == count {
			e.free = slices.Delete(e.free, i, i+1)
		} else {
			e.free[i] = extent{f.first + count, f.count - count}
		}
		return extent{f.first, count}, true
	}
	return extent{}, false
}

// give returns a part to the array.
func (e *extents) give(g extent) {
	if g.count == 0 {
		return
	}
	i := slices.IndexFunc(e.free, func(f extent) bool { return f.first > g.first })
	if i < 0 {
		i = len(e.free)
	}
	e.free = slices.Insert(e.free, i, g)
	if i+1 < len(e.free) && g.first+g.count == e.free[i+1].first {
		e.free[i].count += e.free[i+1].count
		e.free = slices.Delete(e.free, i+1, i+2)
	}
	if i > 0 && e.free[i-1].first+e.free[i-1].count == g.first {
		e.free[i-1].count += e.free[i].count
		e.free = slices.Delete(e.free, i, i+1)
	}
}
