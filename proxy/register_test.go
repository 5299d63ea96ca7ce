package proxy

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A search looks at a few elements. If it has found none, it looks at all, but not again and again.
func TestRegisterSearch(t *testing.T) {
	r := &register[int]{}
	all := make([]int, 1000)
	for i := range all {
		r.add(&all[i])
	}
	var c cursor
	search := func(now time.Duration, found bool, the *int) (looked int, hit bool) {
		r.scan(&c, now, found, func(x *int) bool {
			looked++
			hit = hit || x == the
			return x == the
		})
		return looked, hit
	}
	if _, hit := search(0, false, &all[500]); !hit {
		t.Error("the only match was not found")
	}
	if n, _ := search(0, true, nil); n != perSearch {
		t.Errorf("looked at %d, want %d: a match had been found before", n, perSearch)
	}
	if n, _ := search(0, false, nil); n != len(all) {
		t.Errorf("looked at %d, want all", n)
	}
	if n, _ := search(barren-1, false, nil); n != perSearch {
		t.Errorf("looked at %d, want %d: all had been looked at just before", n, perSearch)
	}
	if n, _ := search(barren, false, nil); n != len(all) {
		t.Errorf("looked at %d, want all", n)
	}
	seen := 0
	for range len(all)/perSearch + 1 {
		if _, hit := search(barren, false, &all[7]); hit {
			seen++
		}
	}
	if seen == 0 {
		t.Error("one element was not looked at in a round")
	}
	for n, i := range rand.Perm(len(all)) {
		r.remove(&all[i])
		r.remove(&all[i]) // does nothing
		if looked, hit := search(time.Duration(n+1)*barren*2, false, &all[i]); hit || looked != len(all)-n-1 {
			t.Fatalf("removed %d, looked at %d; hit: %v", n+1, looked, hit)
		}
	}
	if n, _ := search(time.Hour, false, nil); n != 0 {
		t.Errorf("looked at %d, want none: there are none", n)
	}
}
