package lb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// named returns endpoints called A, B, C ... with the given weights.
func named(weights ...int) []Endpoint {
	var out []Endpoint
	for i, w := range weights {
		out = append(out, endpoint(string(rune('A'+i)), w))
	}
	return out
}

func endpoint(id string, weight int) Endpoint {
	var sum byte
	for _, c := range []byte(id) {
		sum = sum*31 + c
	}
	return Endpoint{ID: id, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, sum}), 80), Weight: weight}
}

func without(endpoints []Endpoint, id string) []Endpoint {
	return slices.DeleteFunc(slices.Clone(endpoints), func(e Endpoint) bool { return e.ID == id })
}

// turns is a rotation with its group, for tests.
type turns struct {
	*rotation
	group   *group
	members []*Member
}

func newTurns() *turns { return &turns{&rotation{}, newGroup("s", NewRoundRobin()), nil} }

func (r *turns) replace(endpoints []Endpoint) {
	r.members = r.group.replaceMembersLocked(r.members, endpoints)
	r.rotation.replace(r.members)
}

func (r *turns) next(tried *Tried) (*Member, bool) {
	m := r.rotation.pick(&query{tried: tried})
	return m, m != nil
}

// take makes n picks and returns the IDs in order.
func take(t testing.TB, r *turns, n int) string {
	t.Helper()
	var b strings.Builder
	for range n {
		e, ok := r.next(&Tried{})
		if !ok {
			t.Fatal("no endpoint")
		}
		b.WriteString(e.ID)
	}
	return b.String()
}

func TestRotationOrder(t *testing.T) {
	tests := []struct {
		name    string
		weights []int
		want    string
	}{
		{"one", []int{1}, "AAAA"},
		{"equal", []int{1, 1, 1}, "ABCABCABC"},
		{"equal, not one", []int{7, 7, 7}, "ABCABCABC"},
		{"3:1:1 never three running", []int{3, 1, 1}, "ABACAABACA"},
		{"1:1:3 never three running", []int{1, 1, 3}, "CACBCCACBC"},
		{"2:1", []int{2, 1}, "ABAABA"},
		{"5:1:1", []int{5, 1, 1}, "AABAACAAABAACA"},
		{"4:3:2:1", []int{4, 3, 2, 1}, "ABCABADCBA"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newTurns()
			r.replace(named(tt.weights...))
			if got := take(t, r, len(tt.want)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestRotationKeepsOrderOverUpdates(t *testing.T) {
	tests := []struct {
		name   string
		before int // picks before the update, of A B C D
		change func([]Endpoint) []Endpoint
		want   string
	}{
		{"nothing changes", 2, func(e []Endpoint) []Endpoint { return e }, "CDABCDAB"},
		{"source lists them in another order", 2, func(e []Endpoint) []Endpoint { slices.Reverse(e); return e },
			"CDABCDAB"},
		{"the next one leaves", 2, func(e []Endpoint) []Endpoint { return without(e, "C") }, "DABDABDA"},
		{"the last one served leaves", 2, func(e []Endpoint) []Endpoint { return without(e, "B") }, "CDACDACD"},
		{"one joins", 2, func(e []Endpoint) []Endpoint { return append(e, endpoint("E", 1)) }, "CDEABCDEAB"},
		{"one joins at the start", 0, func(e []Endpoint) []Endpoint { return append(e, endpoint("E", 1)) },
			"ABCDEABCDE"},
		{"one is replaced", 2, func(e []Endpoint) []Endpoint { return append(without(e, "D"), endpoint("E", 1)) },
			"CEABCEAB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newTurns()
			r.replace(named(1, 1, 1, 1))
			take(t, r, tt.before)
			r.replace(tt.change(named(1, 1, 1, 1)))
			if got := take(t, r, len(tt.want)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// With equal weights, in any window of picks, the counts of two endpoints that are always in the set differ by at most
// one. Other endpoints may join and leave in the meantime.
func TestRotationFairWithinOneOverAnyWindowAcrossUpdates(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		stay := 2 + rnd.IntN(6)
		var set []Endpoint
		for i := range stay {
			set = append(set, endpoint(fmt.Sprintf("s%d", i), 1))
		}
		r := newTurns()
		r.replace(set)
		var picks []string
		for len(picks) < 2000 {
			e, _ := r.next(&Tried{})
			picks = append(picks, e.ID)
			if rnd.IntN(7) == 0 {
				now := slices.Clone(set)
				for i := range rnd.IntN(6) {
					now = append(now, endpoint(fmt.Sprintf("v%d", i), 1))
				}
				rnd.Shuffle(len(now), func(i, j int) { now[i], now[j] = now[j], now[i] })
				r.replace(now)
			}
		}
		for i := range stay {
			for j := range i {
				a, b := fmt.Sprintf("s%d", i), fmt.Sprintf("s%d", j)
				if d := widest(picks, a, b); d > 1 {
					t.Fatalf("seed %d: %s and %s differ by %d in some window, want 1 at most", seed, a, b, d)
				}
			}
		}
	}
}

// widest returns the largest difference between the counts of a and b over all windows of picks.
func widest(picks []string, a, b string) int {
	d, lo, hi := 0, 0, 0
	for _, p := range picks {
		switch p {
		case a:
			d++
		case b:
			d--
		}
		lo, hi = min(lo, d), max(hi, d)
	}
	return hi - lo
}

// With any weights, no endpoint is ever a full turn ahead of its share or behind it. After W picks, each endpoint has
// had exactly its weight in turns.
func TestRotationKeepsWeightedSharesWithinOne(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var weights []int
		for range 1 + rnd.IntN(12) {
			weights = append(weights, 1+rnd.IntN([]int{3, 20, 400}[rnd.IntN(3)]))
		}
		total := 0
		for _, w := range weights {
			total += w
		}
		r := newTurns()
		r.replace(named(weights...))
		counts := make([]int, len(weights))
		for n := 1; n <= 3*total; n++ {
			e, _ := r.next(&Tried{})
			counts[e.ID[0]-'A']++
			for i, w := range weights {
				if off := math.Abs(float64(counts[i]) - float64(n*w)/float64(total)); off >= 1 {
					t.Fatalf("weights %v: %c is off its share by %v after %d picks, want less than 1",
						weights, 'A'+i, off, n)
				}
				if n%total == 0 && counts[i] != w*n/total {
					t.Fatalf("weights %v: %c has %d turns after %d picks, want %d",
						weights, 'A'+i, counts[i], n, w*n/total)
				}
			}
		}
	}
}

// Updates keep the turns that endpoints are owed. With updates at any rate, no endpoint starves and no endpoint gets a
// burst.
func TestRotationSharesSurviveConstantUpdates(t *testing.T) {
	for _, every := range []int{1, 2, 3, 5} {
		r := newTurns()
		counts := map[string]int{}
		const picks = 6000
		for n := range picks {
			if n%every == 0 {
				set := named(5, 1, 2)
				if n/every%2 == 0 {
					set = append(set, endpoint("X", 2))
				}
				r.replace(set)
			}
			e, _ := r.next(&Tried{})
			counts[e.ID]++
		}
		if a, b, c := counts["A"], counts["B"],
			counts["C"]; math.Abs(float64(a)/float64(b)-5) > 0.3 || math.Abs(float64(c)/float64(b)-2) > 0.2 {
			t.Errorf("an update every %d picks: A, B, C got %d, %d, %d, want 5:1:2", every, a, b, c)
		}
	}
}

func TestRotationAvoidsTried(t *testing.T) {
	r := newTurns()
	r.replace(named(1, 1, 1))
	var tried Tried
	for _, want := range []string{"A", "B", "C"} {
		e, ok := r.next(&tried)
		if !ok || e.ID != want {
			t.Fatalf("got %q, %v, want %s", e.ID, ok, want)
		}
		tried.Add(e.ID)
	}
	if e, ok := r.next(&tried); ok {
		t.Fatalf("got %s though all were tried, want none", e.ID)
	}
	if got := take(t, r, 6); got != "ABCABC" {
		t.Errorf("afterwards got %s, want ABCABC", got)
	}
}

// The clients of a dead endpoint spread over all other endpoints, and do not all go to its neighbour in the order.
func TestRotationRetriesSpread(t *testing.T) {
	b := balanced(Options{MaxFails: -1}, named(1, 1, 1, 1, 1)...)
	counts := map[string]int{}
	for range 1000 {
		m, _ := b.NextEndpoint("web", client, Tried{})
		if m.ID == "A" {
			var tried Tried
			tried.Add("A")
			m, _ = b.NextEndpoint("web", client, tried)
		}
		counts[m.ID]++
	}
	for _, id := range []string{"B", "C", "D", "E"} {
		if c := counts[id]; c < 245 || c > 255 {
			t.Errorf("%s served %d of 1000, want 250 within a few", id, c)
		}
	}
}

func TestRotationWithoutEndpoints(t *testing.T) {
	r := newTurns()
	r.replace(nil)
	if _, ok := r.next(&Tried{}); ok {
		t.Error("got an endpoint of an empty set")
	}
	r.replace(named(1, 1))
	r.replace(nil)
	if _, ok := r.next(&Tried{}); ok {
		t.Error("got an endpoint that left")
	}
	r.replace(named(2, 2))
	if got := take(t, r, 4); got != "ABAB" {
		t.Errorf("got %s after the set came back, want ABAB", got)
	}
}

func FuzzRotation(f *testing.F) {
	f.Add([]byte{3, 1, 1, 200, 5, 0, 7, 255, 1, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		r := newTurns()
		var set []Endpoint
		for _, op := range ops {
			switch {
			case op < 100:
				id := fmt.Sprint(op % 10)
				set = append(without(set, id), endpoint(id, 1+int(op)/10*int(op)))
				r.replace(set)
			case op < 120:
				set = without(set, fmt.Sprint(op%10))
				r.replace(set)
			default:
				var tried Tried
				for range op % 3 {
					if e, ok := r.next(&tried); ok {
						tried.Add(e.ID)
					}
				}
				e, ok := r.next(&tried)
				if ok && (tried.Has(e.ID) || e.Left()) {
					t.Fatalf("got %s, tried or not in the set", e.ID)
				}
				if !ok && len(set) > tried.Len() {
					t.Fatalf("got none of %d with %d tried", len(set), tried.Len())
				}
			}
			if n := len(r.open) + len(r.closed); n != len(r.slots) {
				t.Fatalf("%d slots in heaps, want %d", n, len(r.slots))
			}
		}
	})
}
