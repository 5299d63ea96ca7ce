package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTurnsAreExactAndSpread(t *testing.T) {
	for _, tt := range []struct {
		name    string
		weights []int
		want    []int32 // nil: only the properties are checked
	}{
		{"none", nil, []int32{}},
		{"equal", []int{3, 3, 3}, []int32{0, 1, 2}},
		{"zero and negative count as 1", []int{0, -5, 1}, []int32{0, 1, 2}},
		{"common divisor", []int{20, 10}, []int32{0, 1, 0}},
		{"spread", []int{5, 1, 1}, nil},
		{"large", []int{997, 991, 1}, nil},
		{"many", slices.Repeat([]int{1, 2, 3, 5, 8}, 200), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			order := turns(tt.weights)
			if tt.want != nil {
				if !slices.Equal(order, tt.want) {
					t.Errorf("order %v, want %v", order, tt.want)
				}
				return
			}
			checkTurns(t, order, tt.weights)
		})
	}
}

// checkTurns checks that each weight has its turns, and is never more than about one turn ahead or behind.
func checkTurns(t *testing.T, order []int32, weights []int) {
	t.Helper()
	total := 0
	for _, w := range weights {
		total += w
	}
	if len(order) != total {
		t.Fatalf("%d turns, want %d", len(order), total)
	}
	taken := make([]int, len(weights))
	for i, which := range order {
		taken[which]++
		due := float64(i+1) * float64(weights[which]) / float64(total)
		if off := math.Abs(float64(taken[which]) - due); off > 1.5 {
			t.Fatalf("after %d turns, weight %d has %d of %.1f", i+1, weights[which], taken[which], due)
		}
	}
	if !slices.Equal(taken, weights) {
		t.Errorf("turns %v, want %v", taken, weights)
	}
}

func TestTurnsOfHugeWeightsAreScaledDown(t *testing.T) {
	order := turns([]int{3_000_000, 1_000_001, 1})
	if n := len(order); n < maxTurns-2 || n > maxTurns+2 {
		t.Errorf("%d turns, want about %d", n, maxTurns)
	}
	if !slices.Contains(order, 2) {
		t.Error("the smallest weight has no turn")
	}
}

func TestExtents(t *testing.T) {
	const size = 1000
	var e extents
	e.give(extent{0, size})
	var taken []extent
	used := [size]bool{}
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		if len(taken) > 0 && r.IntN(2) == 0 {
			i := r.IntN(len(taken))
			g := taken[i]
			taken = slices.Delete(taken, i, i+1)
			for k := range g.count {
				used[g.first+k] = false
			}
			e.give(g)
			continue
		}
		g, ok := e.take(uint32(r.IntN(60)))
		if !ok {
			continue
		}
		for k := range g.count {
			if used[g.first+k] {
				t.Fatalf("%d is given out twice", g.first+k)
			}
			used[g.first+k] = true
		}
		taken = append(taken, g)
	}
	for _, g := range taken {
		e.give(g)
	}
	if !slices.Equal(e.free, []extent{{0, size}}) {
		t.Errorf("after all is given back, %v is free", e.free)
	}
}
