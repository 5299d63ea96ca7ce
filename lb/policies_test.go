package lb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func allPolicies() []Policy {
	return []Policy{PolicyRoundRobin, PolicyLeastConnections, PolicyRandomTwo, PolicySourceHash}
}

// from returns the address of client n.
func from(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 40000)
}

// spread makes n clients pick once, each from its own address, and counts the picks of each endpoint. Each use ends at
// once.
func spread(t testing.TB, b *RoundRobin, n int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for i := range n {
		m, err := b.NextEndpoint("web", from(i), Tried{})
		if err != nil {
			t.Fatal(err)
		}
		counts[m.ID]++
		m.Done()
	}
	return counts
}

// All policies distribute short uses by weight.
func TestPoliciesShareByWeight(t *testing.T) {
	const n = 60000
	for _, p := range allPolicies() {
		t.Run(p.String(), func(t *testing.T) {
			counts := spread(t, balanced(Options{Policy: p}, named(1, 2, 3)...), n)
			for i, id := range []string{"A", "B", "C"} {
				want := n * (i + 1) / 6
				off := math.Abs(float64(counts[id]-want)) / float64(want)
				if exact := p == PolicyRoundRobin || p == PolicyLeastConnections; exact && off > 0.001 || off > 0.05 {
					t.Errorf("%s got %d, want %d", id, counts[id], want)
				}
			}
		})
	}
}

// These policies even out long uses by weight, in whatever order uses end.
func TestPoliciesEvenOutOpenUses(t *testing.T) {
	for _, tt := range []struct {
		policy Policy
		within float64
	}{{PolicyLeastConnections, 0.01}, {PolicyRandomTwo, 0.1}} {
		t.Run(tt.policy.String(), func(t *testing.T) {
			b := balanced(Options{Policy: tt.policy}, named(1, 1, 2)...)
			rnd := rand.New(rand.NewPCG(1, 1))
			var open []*Member
			for range 20000 {
				m, err := b.NextEndpoint("web", client, Tried{})
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, m)
				// The uses of A last three times as long as the others.
				for len(open) > 1000 {
					i := rnd.IntN(len(open))
					if open[i].ID == "A" && rnd.IntN(3) > 0 {
						continue
					}
					open[i].Done()
					open = slices.Delete(open, i, i+1)
				}
			}
			counts := map[string]int{}
			for _, m := range open {
				counts[m.ID]++
			}
			for id, want := range map[string]float64{"A": 250, "B": 250, "C": 500} {
				if off := math.Abs(float64(counts[id])-want) / want; off > tt.within {
					t.Errorf("%s has %d open, want %v within %v", id, counts[id], want, tt.within)
				}
			}
		})
	}
}

func TestLeastConnectionsTiesRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{Policy: PolicyLeastConnections}, named(1, 1, 1)...)
		if got := picks(t, b, 9); got != "ABCABCABC" {
			t.Errorf("got %s, want ABCABCABC", got)
		}
		// An endpoint that comes back or joins gets its turns and no burst.
		fails(t, b, "B", Refused)
		picks(t, b, 300)
		m := member(t, balanced(Options{Policy: PolicyLeastConnections}, named(1)...), "A")
		m.Done()
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: append(named(1, 1, 1), endpoint("X", 1))}})
		got := picks(t, b, 12)
		for i := range len(got) - 1 {
			if got[i] == got[i+1] {
				t.Errorf("%c twice running in %s", got[i], got)
			}
		}
	})
}

// When one of n endpoints leaves, only its clients move, evenly to the others. When the endpoint comes back, all
// clients are back at their first endpoints.
func TestSourceHashMovesOnlyWhoMust(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}} {
		const n = 20000
		b := balanced(Options{Policy: PolicySourceHash}, named(weights...)...)
		where := func() (ids []string) {
			for i := range n {
				m, err := b.NextEndpoint("web", from(i), Tried{})
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, m.ID)
			}
			return ids
		}
		before := where()
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: without(named(weights...), "D")}})
		moved, got := 0, map[string]int{}
		for i, id := range where() {
			if id != before[i] {
				moved++
				got[id]++
				if before[i] != "D" {
					t.Fatalf("client %d moved from %s to %s though only D left", i, before[i], id)
				}
			}
		}
		total := 0
		for _, w := range weights {
			total += w
		}
		share := float64(weights[3]) / float64(total)
		t.Logf("weights %v: D left, %.2f %% of the clients moved, its share was %.2f %%", weights,
			100*float64(moved)/n, 100*share)
		if off := float64(moved)/n - share; math.Abs(off) > 0.02 {
			t.Errorf("%d of %d moved, want the share of D, %v, within two percent", moved, n, share)
		}
		for i, w := range weights {
			id := string(rune('A' + i))
			want := float64(moved) * float64(w) / float64(total-weights[3])
			if id != "D" && math.Abs(float64(got[id])-want) > 0.25*want+20 {
				t.Errorf("%s got %d of the clients that moved, want about %.0f", id, got[id], want)
			}
		}
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(weights...)}})
		if !slices.Equal(where(), before) {
			t.Error("clients are elsewhere after D came back")
		}
	}
}

// Neither the client's port nor an IPv4-mapped form of its address changes the pick.
func TestSourceHashIsByAddress(t *testing.T) {
	b := balanced(Options{Policy: PolicySourceHash}, named(1, 1, 1, 1, 1)...)
	a := netip.MustParseAddr("192.0.2.7")
	want, _ := b.NextEndpoint("web", netip.AddrPortFrom(a, 1), Tried{})
	for _, src := range []netip.AddrPort{netip.AddrPortFrom(a, 60000),
		netip.AddrPortFrom(netip.AddrFrom16(a.As16()), 5)} {
		if m, _ := b.NextEndpoint("web", src, Tried{}); m.ID != want.ID {
			t.Errorf("%v: got %s, want %s", src, m.ID, want.ID)
		}
	}
	var tried Tried
	tried.Add(want.ID)
	if m, _ := b.NextEndpoint("web", netip.AddrPortFrom(a, 1), tried); m.ID == want.ID {
		t.Error("got an endpoint that was tried")
	}
}

// With any policy, a sticky client keeps its endpoint until the client stays away for too long or the endpoint is out.
func TestStickyClientsStay(t *testing.T) {
	for _, p := range allPolicies() {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(Options{Policy: p, Sticky: time.Minute}, named(1, 1, 1, 1)...)
				at := func(n int) *Member {
					m, err := b.NextEndpoint("web", from(n), Tried{})
					if err != nil {
						t.Fatal(err)
					}
					m.Done()
					return m
				}
				was := map[int]string{}
				for n := range 100 {
					was[n] = at(n).ID
				}
				for range 3 {
					time.Sleep(50 * time.Second)
					for n := range 100 {
						if id := at(n).ID; id != was[n] {
							t.Fatalf("client %d moved from %s to %s", n, was[n], id)
						}
					}
				}
				m := at(0)
				m.Failed(Refused)
				now := at(0)
				if now.ID == m.ID {
					t.Fatal("the client is still at an ejected endpoint")
				}
				time.Sleep(2 * time.Second)
				for range 10 {
					at(1000) // some other client tries it
				}
				if !slices.Contains([]string{now.ID, m.ID}, at(0).ID) {
					t.Error("the client moved again")
				}
				gone := at(1).ID
				b.OnUpdate([]Endpoints{{Service: "web", Endpoints: without(named(1, 1, 1, 1), gone)}})
				if at(1).ID == gone {
					t.Error("the client is at an endpoint that has left")
				}
			})
		})
	}
}

func TestStickyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{Sticky: time.Minute}, named(1, 1)...)
		if got := picks(t, b, 3); got != "AAA" {
			t.Errorf("got %s, want AAA", got)
		}
		time.Sleep(time.Minute)
		if got := picks(t, b, 3); got != "BBB" {
			t.Errorf("after a minute got %s, want BBB", got)
		}
		b.Configure("web", Options{})
		if got := picks(t, b, 4); got != "ABAB" {
			t.Errorf("no more sticky, got %s, want ABAB", got)
		}
	})
}

func TestStickyTableIsBounded(t *testing.T) {
	table := newStickyTable(stickyShards * 10)
	m := &Member{}
	for i := range 10000 {
		table.put(from(i).Addr(), m, instant(i))
		table.get(from(7).Addr(), instant(i), math.MaxInt64) // a client that comes all the time
	}
	if n := table.len(); n != stickyShards*10 {
		t.Errorf("%d clients are remembered, want %d", n, stickyShards*10)
	}
	if table.get(from(7).Addr(), 10000, math.MaxInt64) != m {
		t.Error("forgot the client that comes all the time")
	}
	if table.get(from(100).Addr(), 10000, math.MaxInt64) != nil {
		t.Error("the table remembers a client that came once, long ago")
	}
}

// A change of policy changes neither members nor open uses.
func TestConfigureKeepsMembersAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{}, named(1, 1, 1, 1)...)
		m := member(t, b, "B")
		fails(t, b, "C", Refused)
		for _, p := range append(allPolicies(), PolicyRoundRobin) {
			b.Configure("web", Options{Policy: p, Sticky: time.Hour})
			b.Configure("web", Options{Policy: p})
			if m.Left() || m.open.Load() != 1 {
				t.Errorf("%v: left %v, %d open, want false and 1", p, m.Left(), m.open.Load())
			}
			if c := spread(t, b, 400); c["C"] != 0 || c["A"] == 0 || c["D"] == 0 {
				t.Errorf("%v: got %v, want none for C, which is ejected", p, c)
			}
		}
	})
}

func TestConfigureOfAnotherNetwork(t *testing.T) {
	b := balanced(Options{}, named(1, 1, 1)...)
	m := member(t, b, "B")
	m.Failed(Refused)
	b.Configure("web", Options{Network: UDP})
	if !m.Left() {
		t.Error("the members used over TCP have not left")
	}
	m.Done()
	if c := spread(t, b, 30); c["B"] != 10 {
		t.Errorf("got %v, want B to be picked over UDP like the others", c)
	}
}

// With any policy, the share of a new endpoint grows with time, and the others share the rest.
func TestSlowStart(t *testing.T) {
	for _, p := range allPolicies() {
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(Options{Policy: p, SlowStart: 10 * time.Second}, named(1, 1, 1)...)
				if c := spread(t, b, 3000); c["A"] < 900 || c["B"] < 900 || c["C"] < 900 {
					t.Errorf("got %v, want the first set to have its full share at once", c)
				}
				b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1, 1, 1, 1)}})
				want := func(share float64) {
					t.Helper()
					const n = 8000
					c := spread(t, b, n)
					full := share / (3 + share) * n
					tolerance := 0.02 * n
					if p == PolicyRandomTwo { // of two idle endpoints, the policy may pick either
						tolerance = 0.04 * n
					}
					if d := float64(c["D"]); math.Abs(d-full) > tolerance {
						t.Errorf("at %v got %v, want %.0f for D", share, c, full)
					}
					if a, b := float64(c["A"]), float64(c["B"]); math.Abs(a-b) > 0.06*n {
						t.Errorf("at %v got %v, want the others to be equal", share, c)
					}
				}
				want(minShare)
				time.Sleep(5 * time.Second)
				want(0.5)
				time.Sleep(5 * time.Second)
				want(1)
				d := memberOf(t, b, "D")
				d.Failed(Refused)
				d.Reached()
				want(minShare)
				time.Sleep(10 * time.Second)
				want(1)
			})
		})
	}
}

func TestPickAllocatesNothingByAnyPolicy(t *testing.T) {
	for _, p := range allPolicies() {
		for _, sticky := range []time.Duration{0, time.Hour} {
			b := balanced(Options{Policy: p, Sticky: sticky, SlowStart: time.Hour, MinAvailable: -1},
				named(3, 1, 1, 2)...)
			b.OnUpdate([]Endpoints{{Service: "web", Endpoints: append(named(3, 1, 1, 2), endpoint("X", 1))}})
			b.Configure("web", Options{Policy: p, SlowStart: time.Hour, MinAvailable: -1})
			a := memberOf(t, b, "A")
			a.Failed(Refused)
			a.health.due.Store(distantFuture) // no trial is due
			a.group.reviewAll()
			b.Configure("web", Options{Policy: p, Sticky: sticky, SlowStart: time.Hour, MinAvailable: -1})
			var tried Tried
			tried.Add("B")
			i := 0
			if n := testing.AllocsPerRun(1000, func() {
				for _, tried := range []Tried{{}, tried} {
					i++
					m, err := b.NextEndpoint("web", from(i%64), tried)
					if err != nil {
						t.Fatal(err)
					}
					m.Connected()
					m.Reached()
					m.Done()
				}
			}); n != 0 {
				t.Errorf("%v, sticky %v: a pick allocates %v times, want 0", p, sticky, n)
			}
		}
	}
}

// memberOf returns the member of "web" with the given ID, without a pick.
func memberOf(t *testing.T, b *RoundRobin, id string) *Member {
	t.Helper()
	v, _ := b.services.Load("web")
	for _, m := range v.(*group).state.Load().members {
		if m.ID == id {
			return m
		}
	}
	t.Fatalf("no member %s", id)
	return nil
}

// During concurrent changes, all picks are of members in the set, and in the end no use is open.
func TestConcurrentPolicies(t *testing.T) {
	b := balanced(Options{}, named(1, 2, 1, 1)...)
	until := time.Now().Add(500 * time.Millisecond)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for n := 0; time.Now().Before(until); n++ {
				m, err := b.NextEndpoint("web", from(i*1000+n%100), Tried{})
				if err != nil {
					t.Error(err)
					return
				}
				if n%7 == 0 {
					m.Failed(Unreachable)
				} else {
					m.Reached()
				}
				m.Done()
			}
		})
	}
	for n := 0; time.Now().Before(until); n++ {
		b.Configure("web", Options{Policy: Policy(n % 4), Sticky: time.Duration(n%3) * time.Second,
			SlowStart: time.Duration(n%2) * time.Second})
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1, 1+n%4, 1, 1)[:2+n%3]}})
	}
	wg.Wait()
	v, _ := b.services.Load("web")
	if g := v.(*group); g.open.Load() != 0 {
		t.Errorf("%d open uses, want 0", g.open.Load())
	}
}

func BenchmarkPolicies(b *testing.B) {
	for _, p := range allPolicies() {
		for _, n := range []int{1, 10, 1000} {
			for _, weighted := range []bool{false, true} {
				name := fmt.Sprintf("%v/%d", p, n)
				weight := func(int) int { return 1 }
				if weighted {
					name += "/weighted"
					weight = func(i int) int { return 1 + i%5 }
				}
				var set []Endpoint
				for i := range n {
					set = append(set, Endpoint{ID: fmt.Sprint(i),
						Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80),
						Weight: weight(i)})
				}
				benchPick(b, name, balanced(Options{Policy: p}, set...))
				if n > 1 && !weighted {
					benchPick(b, name+"/half_ejected", halfEjected(balanced(Options{Policy: p}, set...)))
				}
				if n == 10 && !weighted {
					benchPick(b, name+"/sticky", balanced(Options{Policy: p, Sticky: time.Hour}, set...))
				}
			}
		}
	}
}

// halfEjected ejects every other member of "web" for ever.
func halfEjected(b *RoundRobin) *RoundRobin {
	v, _ := b.services.Load("web")
	g := v.(*group)
	for i, m := range g.state.Load().members {
		if i%2 == 0 {
			m.Failed(Refused)
			m.health.due.Store(distantFuture)
		}
	}
	g.reviewAll()
	return b
}

// benchPick measures a whole use: the pick, and all reports of the proxier.
func benchPick(b *testing.B, name string, lb *RoundRobin) {
	use := func(i int) {
		m, err := lb.NextEndpoint("web", from(i&1023), Tried{})
		if err != nil {
			panic(err)
		}
		m.Connected()
		m.Reached()
		m.Done()
	}
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			use(i)
		}
	})
	b.Run(name+"/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				use(i)
			}
		})
	})
}
