package lb

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// large is a number of endpoints above manyMembers.
const large = 2*manyMembers + 88

// webGroup returns the group of "web".
func webGroup(b *RoundRobin) *group {
	v, _ := b.services.Load("web")
	return v.(*group)
}

// In a large set too, all policies distribute short uses by weight.
func TestLargeSetSharesByWeight(t *testing.T) {
	set := sized(large, true) // weights 1 to 5
	set[7].Weight = large     // a fourth of all
	total := 0
	for _, e := range set {
		total += e.Weight
	}
	const n = 60000
	for _, p := range allPolicies() {
		t.Run(p.String(), func(t *testing.T) {
			counts := spread(t, balanced(Options{Policy: p}, set...), n)
			byWeight := map[int][2]float64{} // picks and share
			for _, e := range set {
				share := n * float64(e.Weight) / float64(total)
				got := float64(counts[e.ID])
				if math.Abs(got-share) > 0.3*share+6*math.Sqrt(share) {
					t.Errorf("%s of weight %d got %v, want about %.0f", e.ID, e.Weight, got, share)
				}
				sum := byWeight[e.Weight]
				byWeight[e.Weight] = [2]float64{sum[0] + got, sum[1] + share}
			}
			for weight, sum := range byWeight {
				if math.Abs(sum[0]-sum[1]) > 0.05*sum[1] {
					t.Errorf("those of weight %d got %.0f, want %.0f", weight, sum[0], sum[1])
				}
			}
		})
	}
}

// In a large set too, these policies even out the open uses.
func TestLargeSetEvensOutOpenUses(t *testing.T) {
	for _, tt := range []struct {
		policy Policy
		most   int64
	}{{PolicyLeastConnections, 12}, {PolicyRandomTwo, 15}} {
		t.Run(tt.policy.String(), func(t *testing.T) {
			b := balanced(Options{Policy: tt.policy}, sized(large, false)...)
			rnd := rand.New(rand.NewPCG(1, 1))
			var open []*Member
			for range 50 * large {
				m, err := b.NextEndpoint("web", client, Tried{})
				if err != nil {
					t.Fatal(err)
				}
				if open = append(open, m); len(open) > 10*large { // any of them ends
					i := rnd.IntN(len(open))
					open[i].Done()
					open[i] = open[len(open)-1]
					open = open[:len(open)-1]
				}
			}
			for _, m := range webGroup(b).state.Load().members {
				if n := m.open.Load(); n > tt.most {
					t.Errorf("%s has %d open uses, want at most %d where the mean is 10", m.ID, n, tt.most)
				}
			}
		})
	}
}

// Even if very few of many endpoints may serve, a pick finds them. If none may serve, the error says why.
func TestLargeSetFindsWhoMayServe(t *testing.T) {
	const last = large - 1
	none := func(int) bool { return false }
	all := func(int) bool { return true }
	odd := func(i int) bool { return i%2 == 1 }
	even := func(i int) bool { return i%2 == 0 }
	others := func(i int) bool { return i != last }
	isLast := func(i int) bool { return i == last }
	always := Options{MinAvailable: -1} // ejections are never ignored
	one := Options{MaxPerEndpoint: 1}
	panics := Options{MaxPerEndpoint: 1, MinAvailable: 100}
	for _, p := range allPolicies() {
		for _, tt := range []struct {
			name    string
			o       Options
			fails   func(i int) bool // ejected endpoints
			full    func(i int) bool
			tries   bool // the client has tried another endpoint
			want    int  // the picked endpoint; negative: none
			wantErr error
		}{
			{"one is not ejected", always, others, none, false, last, nil},
			{"one is not ejected, after another try", always, others, none, true, last, nil},
			{"one has room", one, none, others, false, last, nil},
			{"one has room, after another try", one, none, others, true, last, nil},
			{"one has room, and is ejected in vain", panics, isLast, others, false, last, nil},
			{"all are ejected", always, all, none, false, -1, ErrMissingEndpoints},
			{"all are full", one, none, all, false, -1, ErrFull},
			{"all are full or ejected", Options{MaxPerEndpoint: 1, MinAvailable: -1}, even, odd, false, -1, ErrFull},
		} {
			t.Run(fmt.Sprintf("%v/%s", p, tt.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tt.o.Policy = p
					set := sized(large, false)
					b := balanced(tt.o, set...)
					g := webGroup(b)
					for i, m := range g.state.Load().members {
						if tt.full(i) {
							g.claim(g.state.Load(), m)
						}
						if tt.fails(i) {
							m.Failed(Refused)
						}
					}
					var tried Tried
					if tt.tries {
						tried.Add(set[0].ID)
					}
					m, err := b.NextEndpoint("web", client, tried)
					if err != tt.wantErr || tt.want >= 0 && m.ID != set[tt.want].ID {
						t.Errorf("got %v, %v, want endpoint %d, %v", m, err, tt.want, tt.wantErr)
					}
				})
			})
		}
	}
}

// In a set of any size and any state, a pick examines a limited number of endpoints.
func TestLargeSetPickLooksAtFew(t *testing.T) {
	const n, bound = 5000, 800
	for _, p := range allPolicies() {
		b := balanced(Options{Policy: p, MaxPerEndpoint: 1, MinAvailable: -1}, sized(n, true)...)
		g := webGroup(b)
		most := func(when string) {
			t.Helper()
			st := g.state.Load()
			for _, q := range []query{{}, {skipTroubled: true}, {panicking: true}} {
				for i := range 50 {
					q := q
					q.tried, q.maxOpen = &Tried{}, 1
					if q.skipTroubled {
						q.tried.Add(st.members[i].ID)
					}
					if st.pick(from(i).Addr(), &q); q.examined > bound {
						t.Fatalf("%v, %s: a pick examined %d of %d endpoints", p, when, q.examined, n)
					}
				}
			}
		}
		most("all may serve")
		members := g.state.Load().members
		for i, m := range members {
			if i%2 == 0 {
				g.claim(g.state.Load(), m)
			} else {
				m.Failed(Unreachable) // not ejected yet
			}
		}
		most("half are full, half are troubled")
		for _, m := range members {
			m.Failed(Refused)
		}
		most("all are ejected, half are full")
	}
}

// When one of many full endpoints has a free use again, a waiting client gets it.
func TestLargeSetQueueGetsTheRoomThatThereIs(t *testing.T) {
	o := Options{Policy: PolicySourceHash, MaxPerEndpoint: 1, MaxQueue: 10, QueueTimeout: time.Minute}
	b := balanced(o, sized(large, false)...)
	members := fill(t, b)
	if len(members) != large {
		t.Fatalf("full with %d, want %d", len(members), large)
	}
	got := make(chan *Member, 1)
	if _, err := b.Wait("web", client, Tried{}, func(m *Member, _ error) { got <- m }); err != nil {
		t.Fatal(err)
	}
	members[77].Done()
	if m := <-got; m.ID != members[77].ID {
		t.Errorf("got %s, want %s", m.ID, members[77].ID)
	}
}

// wantCounted compares the summaries in g with the health and the open uses of the members.
func wantCounted(t *testing.T, g *group) {
	t.Helper()
	st := g.state.Load()
	ejected, due := 0, distantFuture
	for i, m := range st.members {
		out := m.health.ejectedUntil.Load() != 0
		if out {
			ejected++
			due = min(due, m.entry.due)
			if m.entry.due < m.health.due.Load() { // a later time is right if the endpoint was full when it was due
				t.Errorf("endpoint %d is due too soon", i)
			}
		}
		if !st.roster.isLarge() {
			continue
		}
		most := int64(st.options.MaxPerEndpoint)
		room := most == 0 || m.open.Load() < most
		if got := st.roster.room.has(i); got != room {
			t.Errorf("endpoint %d is marked as with room: %v, want %v", i, got, room)
		}
		if got := st.roster.ready.has(i); got != (room && !out) {
			t.Errorf("endpoint %d is marked as ready: %v, want %v", i, got, room && !out)
		}
	}
	if got := g.ejectedCount.Load(); got != int64(ejected) || len(g.ejectedMembers) != ejected {
		t.Errorf("%d are ejected, and %d in the heap, want %d", got, len(g.ejectedMembers), ejected)
	}
	if got := g.nextDue.Load(); got != due {
		t.Errorf("one is due at %d, want %d", got, due)
	}
	if got, want := g.panicking.Load(), st.options.panics(ejected, len(st.members)); got != want {
		t.Errorf("panicking is %v, want %v", got, want)
	}
	for _, marks := range []*bitmap{st.roster.room, st.roster.ready} {
		n := int64(0)
		for i := 0; marks != nil && i < len(st.members); i++ {
			if marks.has(i) {
				n++
			}
		}
		if marks != nil && marks.count.Load() != n {
			t.Errorf("%d marks are counted, want %d", marks.count.Load(), n)
		}
	}
}

// After random events in random order, the summaries of a group equal a full count over its members.
func TestWhatIsKeptOfMembersIsRight(t *testing.T) {
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		all := sized(large+100, seed%2 == 0)
		b := balanced(Options{}, all[:large]...)
		b.OnUpdate([]Endpoints{{Service: "other", Endpoints: all[:50]}})
		g := webGroup(b)
		var open []*Member
		for range 300 {
			switch rnd.IntN(12) {
			case 0:
				size := []int{3, manyMembers, manyMembers + 1, large}[rnd.IntN(4)]
				from := rnd.IntN(100)
				b.OnUpdate([]Endpoints{{Service: "web", Endpoints: all[from : from+size]}})
			case 1:
				b.Configure("web", Options{
					Policy: Policy(rnd.IntN(4)), MaxPerEndpoint: rnd.IntN(3), MinAvailable: []int{-1, 50}[rnd.IntN(2)],
					Network: Network(rnd.IntN(8) / 7),
				})
			default:
				m, err := b.NextEndpoint("web", from(rnd.IntN(1000)), Tried{})
				if err != nil {
					break
				}
				switch rnd.IntN(4) {
				case 0:
					m.Failed(Cause(1 + rnd.IntN(3)))
				case 1:
					m.Connected()
					m.Reached()
				}
				open = append(open, m)
				for len(open) > rnd.IntN(40) {
					i := rnd.IntN(len(open))
					open[i].Done()
					open = slices.Delete(open, i, i+1)
				}
			}
		}
		wantCounted(t, g)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// The summaries of a group are also right after concurrent events.
func TestWhatIsKeptOfMembersIsRightAfterAll(t *testing.T) {
	all := sized(large+1, true)
	b := balanced(Options{MaxPerEndpoint: 1, MinAvailable: -1}, all[:large]...)
	var users sync.WaitGroup
	for i := range 4 {
		users.Go(func() {
			for n := range 5000 {
				m, err := b.NextEndpoint("web", from(i*1000+n%100), Tried{})
				switch {
				case errors.Is(err, ErrFull), errors.Is(err, ErrMissingEndpoints): // all are full or ejected
					continue
				case err != nil:
					t.Error(err)
					return
				}
				switch n % 7 {
				case 0:
					m.Failed(Refused)
				case 1, 2, 3:
					m.Reached()
				}
				m.Done()
			}
		})
	}
	for i := range 40 {
		b.Configure("web", Options{Policy: Policy(i % 4), MaxPerEndpoint: 1 + i%2, MinAvailable: -1})
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: all[i%2 : large+i%2]}})
	}
	users.Wait()
	wantCounted(t, webGroup(b))
}

// In a large set too, round robin is exact, even across updates.
func TestLargeSetTakesTurns(t *testing.T) {
	set := sized(large+1, false)
	b := balanced(Options{}, set[:large]...)
	counts := map[string]int{}
	for round := range 3 {
		for range large / 2 {
			m, _ := b.NextEndpoint("web", client, Tried{})
			counts[m.ID]++
			m.Done()
		}
		// Another endpoint replaces the last one.
		set[large-1], set[large] = set[large], set[large-1]
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: set[:large]}})
		for range large / 2 {
			m, _ := b.NextEndpoint("web", client, Tried{})
			counts[m.ID]++
			m.Done()
		}
		for _, e := range set[:large-1] {
			if n := counts[e.ID]; n < round || n > round+2 {
				t.Fatalf("%s had %d turns after %d rounds", e.ID, n, round+1)
			}
		}
	}
}

// In a large set too, no endpoint is ever a full turn ahead of its share or behind it.
func TestLargeSetKeepsWeightedSharesWithinOne(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 4))
	set, total := sized(large, false), 0
	for i := range set {
		set[i].Weight = []int{1, 1, 1, 2, 3, 50}[rnd.IntN(6)]
		total += set[i].Weight
	}
	place := map[string]int{}
	for i, e := range set {
		place[e.ID] = i
	}
	b := balanced(Options{}, set...)
	counts := make([]int, large)
	for n := 1; n <= 2*total; n++ {
		m, _ := b.NextEndpoint("web", client, Tried{})
		counts[place[m.ID]]++
		m.Done()
		if n%97 > 0 {
			continue
		}
		for i, e := range set {
			if off := math.Abs(float64(counts[i]) - float64(n*e.Weight)/float64(total)); off >= 1 {
				t.Fatalf("%s of weight %d is off its share by %v after %d picks", e.ID, e.Weight, off, n)
			}
		}
	}
}

func TestLargeSetPickAllocatesNothing(t *testing.T) {
	for _, p := range allPolicies() {
		b := balanced(Options{Policy: p, MaxPerEndpoint: 100}, sized(large, true)...)
		var tried Tried
		tried.Add("node-1/web-1")
		if n := testing.AllocsPerRun(1000, func() {
			for _, tried := range []Tried{{}, tried} {
				m, err := b.NextEndpoint("web", client, tried)
				if err != nil {
					t.Fatal(err)
				}
				m.Done()
			}
		}); n != 0 {
			t.Errorf("%v: a pick allocates %v times, want 0", p, n)
		}
	}
}

func TestDrawIsByWeight(t *testing.T) {
	for name, set := range map[string][]Endpoint{
		"equal": sized(50, false), "weighted": sized(50, true), "skewed": named(1, 1000, 1, 3),
	} {
		r := balanced(Options{}, set...)
		roster := webGroup(r).state.Load().roster
		total, counts := 0, map[string]int{}
		for _, e := range set {
			total += e.Weight
		}
		const n = 200000
		for range n {
			counts[roster.draw().ID]++
		}
		for _, e := range set {
			want := n * float64(e.Weight) / float64(total)
			if off := math.Abs(float64(counts[e.ID]) - want); off > 6*math.Sqrt(want) {
				t.Errorf("%s: %s was drawn %d times, want about %.0f", name, e.ID, counts[e.ID], want)
			}
		}
	}
}

func TestBitmap(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 1000} {
		b := fullBitmap(n)
		in := make([]bool, n)
		for i := range in {
			in[i] = true
		}
		rnd := rand.New(rand.NewPCG(1, uint64(n)))
		for range 3 * n {
			i := rnd.IntN(n)
			in[i] = rnd.IntN(4) == 0
			b.set(i, in[i])
			from, want, count := rnd.IntN(n+1), -1, int64(0)
			for j := n - 1; j >= 0; j-- {
				if in[j] {
					count++
					if j >= from {
						want = j
					}
				}
				if b.has(j) != in[j] {
					t.Fatalf("of %d, %d is in: %v, want %v", n, j, b.has(j), in[j])
				}
			}
			if got := b.nextSet(from); got != want || b.count.Load() != count {
				t.Fatalf("of %d: next(%d) is %d of %d, want %d of %d", n, from, got, b.count.Load(), want, count)
			}
		}
	}
}
