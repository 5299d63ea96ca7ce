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

// A world has zones with clients. The clients of each zone have a balancer of their own, which sees all endpoints.
type world struct {
	balancers []*RoundRobin // one for each zone
	picks     map[string]float64
	stayed    []float64 // picks of near endpoints, for each zone
}

// newWorld returns a world with zones of endpoints with these weights.
func newWorld(o Options, zones ...[]int) *world {
	w := &world{picks: map[string]float64{}, stayed: make([]float64, len(zones))}
	for own := range zones {
		b := NewRoundRobin()
		b.Configure("web", o)
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: seenFrom(own, zones)}})
		w.balancers = append(w.balancers, b)
	}
	return w
}

// seenFrom returns the endpoints of all zones, as they are seen from one of them. Endpoint 2 of zone 1 is "b2".
func seenFrom(own int, zones [][]int) (all []Endpoint) {
	for i, weights := range zones {
		for j, weight := range weights {
			zone := string(rune('a' + i))
			addr := netip.AddrFrom4([4]byte{10, 0, byte(i), byte(j)})
			all = append(all, Endpoint{ID: fmt.Sprint(zone, j), Addr: netip.AddrPortFrom(addr, 80), Weight: weight,
				Zone: zone, Near: i == own})
		}
	}
	return all
}

// run makes n clients of a zone pick. Each client has an address of its own, and its use ends at once.
func (w *world) run(t *testing.T, zone, n int) {
	t.Helper()
	for i := range n {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, byte(zone), byte(i >> 8), byte(i)}), 40000)
		m, err := w.balancers[zone].NextEndpoint("web", client, Tried{})
		if err != nil {
			t.Fatal(err)
		}
		w.picks[m.ID]++
		if m.Near {
			w.stayed[zone]++
		}
		m.Done()
	}
}

// eject ejects an endpoint for the clients of all zones.
func (w *world) eject(id string) {
	for _, b := range w.balancers {
		v, _ := b.services.Load("web")
		for _, m := range v.(*group).state.Load().members {
			if m.ID == id {
				m.Failed(Refused)
			}
		}
	}
}

// wantEven checks that each endpoint has clients in proportion to its weight, within a part of that. gone endpoints
// must have none.
func (w *world) wantEven(t *testing.T, zones [][]int, gone []string, within float64) {
	t.Helper()
	total, all := 0.0, 0.0
	for _, n := range w.picks {
		all += n
	}
	for i, weights := range zones {
		for j, weight := range weights {
			if !slices.Contains(gone, fmt.Sprint(string(rune('a'+i)), j)) {
				total += float64(weight)
			}
		}
	}
	for i, weights := range zones {
		for j, weight := range weights {
			id := fmt.Sprint(string(rune('a'+i)), j)
			want := all * float64(weight) / total
			if slices.Contains(gone, id) {
				want = 0
			}
			if got := w.picks[id]; math.Abs(got-want) > within*want+3*math.Sqrt(want)*within+float64(len(zones)) {
				t.Errorf("zones %v without %v: %s has %v picks, want %.1f", zones, gone, id, got, want)
			}
		}
	}
}

// fairShare is the share of clients that stays in their zone, as the documentation has it.
func fairShare(own int, zones [][]int, gone []string) float64 {
	sum := func(i int) (n float64) {
		for j, weight := range zones[i] {
			if !slices.Contains(gone, fmt.Sprint(string(rune('a'+i)), j)) {
				n += float64(weight)
			}
		}
		return n
	}
	total, with := 0.0, 0.0
	for i := range zones {
		if total += sum(i); sum(i) > 0 {
			with++
		}
	}
	return min(1, with*sum(own)/total)
}

// With as many clients in each zone that has endpoints, and any number in other zones, each endpoint gets clients in
// proportion to its weight, whatever the zones and ejections are, and no client leaves its zone needlessly.
func TestFairPreferenceLoadsAllEndpointsAlike(t *testing.T) {
	rnd := rand.New(rand.NewPCG(20, 1))
	for _, p := range allPolicies() {
		within := 0.002
		if p == PolicyRandomTwo || p == PolicySourceHash {
			within = 0.2
		}
		for round := range 10 {
			zones := make([][]int, 1+rnd.IntN(4))
			var ids []string
			for i := range zones {
				for j := range rnd.IntN(5) {
					zones[i] = append(zones[i], 1+rnd.IntN(3)*rnd.IntN(2))
					ids = append(ids, fmt.Sprint(string(rune('a'+i)), j))
				}
			}
			if len(ids) < 2 {
				continue
			}
			var gone []string
			if round%2 == 1 {
				rnd.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
				gone = ids[:1+rnd.IntN(len(ids)/2)]
			}
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(Options{Policy: p, Prefer: PreferFair, MinAvailable: -1}, zones...)
				for _, id := range gone {
					w.eject(id)
				}
				const n = 6000
				for i := range zones {
					want, clients := fairShare(i, zones, gone), n
					if want == 0 {
						clients = rnd.IntN(n)
					}
					w.run(t, i, clients)
					if got := w.stayed[i] / n; math.Abs(got-want) > 0.001 && clients == n && within < 0.01 ||
						math.Abs(got-want) > 0.02 && clients == n {
						t.Errorf("%v, zones %v without %v: %v of zone %d stay, want %v", p, zones, gone, got, i, want)
					}
				}
				w.wantEven(t, zones, gone, within)
			})
		}
	}
}

// The shares that the documentation shows for two zones, of whose clients each has half.
func TestSharesOfTwoZones(t *testing.T) {
	for _, tt := range []struct {
		name   string
		zones  [][]int
		gone   []string
		stay   []float64 // share of the clients of each zone that stays
		picked []float64 // share of all picks that each zone's endpoints get
	}{
		{"1:1", [][]int{{1, 1}, {1, 1}}, nil, []float64{1, 1}, []float64{.5, .5}},
		{"1:3", [][]int{{1}, {1, 1, 1}}, nil, []float64{.5, 1}, []float64{.25, .75}},
		{"1:0", [][]int{{1, 1}, {}}, nil, []float64{1, 0}, []float64{1, 0}},
		{"1:1, half of one ejected", [][]int{{1, 1}, {1, 1}}, []string{"a0"},
			[]float64{2. / 3, 1}, []float64{1. / 3, 2. / 3}},
		{"1:3, the one ejected", [][]int{{1}, {1, 1, 1}}, []string{"a0"}, []float64{0, 1}, []float64{0, 1}},
		{"1:3, two of three ejected", [][]int{{1}, {1, 1, 1}}, []string{"b0", "b1"},
			[]float64{1, 1}, []float64{.5, .5}},
	} {
		for _, p := range allPolicies() {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(Options{Policy: p, Prefer: PreferFair, MinAvailable: -1}, tt.zones...)
				for _, id := range tt.gone {
					w.eject(id)
				}
				const n = 8000
				picked := make([]float64, len(tt.zones))
				for i := range tt.zones {
					w.run(t, i, n)
				}
				for id, n := range w.picks {
					picked[id[0]-'a'] += n
				}
				t.Logf("%-26s %-18v stay %.3f %.3f  picked %.3f %.3f", tt.name, p, w.stayed[0]/n, w.stayed[1]/n,
					picked[0]/(2*n), picked[1]/(2*n))
				for i := range tt.zones {
					if stay, got := w.stayed[i]/n, picked[i]/(2*n); math.Abs(stay-tt.stay[i]) > .02 ||
						math.Abs(got-tt.picked[i]) > .02 {
						t.Errorf("%s, %v, zone %d: %.3f stay and %.3f of all picks are there, want %.3f and %.3f",
							tt.name, p, i, stay, got, tt.stay[i], tt.picked[i])
					}
				}
			})
		}
	}
}

// nearTwoOfEight returns two near endpoints of weight 1, and six others. Fairly, half of the clients stay near.
func nearTwoOfEight() []Endpoint { return seenFrom(0, [][]int{{1, 1}, {1, 1, 1, 1, 1, 1}}) }

// stay counts the picks of near endpoints in n picks of clients with addresses of their own.
func stay(t *testing.T, b *RoundRobin, n int) (near int) {
	t.Helper()
	for id, picks := range spread(t, b, n) {
		if id[0] == 'a' {
			near += picks
		}
	}
	return near
}

func TestStrictPreferenceLeavesOnlyForWantOfNearEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, p := range allPolicies() {
			b := balanced(Options{Policy: p, Prefer: PreferStrict, MinAvailable: -1}, nearTwoOfEight()...)
			if got := stay(t, b, 1000); got != 1000 {
				t.Errorf("%v: %d of 1000 stay", p, got)
			}
			w := &world{balancers: []*RoundRobin{b}}
			w.eject("a0")
			if got := stay(t, b, 1000); got != 1000 {
				t.Errorf("%v, one of two near endpoints ejected: %d of 1000 stay", p, got)
			}
			w.eject("a1")
			if got := stay(t, b, 1000); got != 0 {
				t.Errorf("%v, both ejected: %d of 1000 stay", p, got)
			}
		}
	})
}

// A client that finds all near endpoints full or tried gets another one.
func TestFullOrTriedNearEndpointsAreLeft(t *testing.T) {
	for _, p := range allPolicies() {
		b := balanced(Options{Policy: p, Prefer: PreferStrict, MaxPerEndpoint: 1}, nearTwoOfEight()...)
		near, open := 0, 0
		for i := range 9 {
			m, err := b.NextEndpoint("web", from(i), Tried{})
			if err != nil {
				if err != ErrFull || open != 8 || near != 2 {
					t.Errorf("%v: got %v with %d open, %d of them near", p, err, open, near)
				}
				break
			}
			if open++; m.Near {
				near++
			}
		}
		b = balanced(Options{Policy: p, Prefer: PreferStrict}, nearTwoOfEight()...)
		var tried Tried
		for i := range 7 {
			m, err := b.NextEndpoint("web", from(1), tried)
			if err != nil || m.Near != (i < 2) {
				t.Errorf("%v, attempt %d: got %v, %v", p, i+1, m, err)
				break
			}
			m.Done()
			tried.Add(m.ID)
		}
	}
}

// Sticky clients keep their endpoints, and clients of source_hash change sides only as far as the share changes.
func TestPreferenceMovesNoClientWithoutNeed(t *testing.T) {
	const n = 2000
	where := func(b *RoundRobin) (ids []string) {
		for i := range n {
			m, err := b.NextEndpoint("web", from(i), Tried{})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, m.ID)
			m.Done()
		}
		return ids
	}
	moved := func(a, b []string) (n int) {
		for i := range a {
			if a[i] != b[i] {
				n++
			}
		}
		return n
	}
	b := balanced(Options{Prefer: PreferFair, Sticky: time.Hour}, nearTwoOfEight()...)
	before := where(b)
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: seenFrom(0, [][]int{{1, 1}, {1, 1, 1, 1, 1, 1, 1, 1}})}})
	if got := moved(before, where(b)); got != 0 {
		t.Errorf("%d of %d sticky clients moved", got, n)
	}
	b = balanced(Options{Policy: PolicySourceHash, Prefer: PreferFair}, nearTwoOfEight()...)
	before = where(b)
	if got := moved(before, where(b)); got != 0 {
		t.Errorf("%d of %d clients moved without a change", got, n)
	}
	// Two further endpoints get a fifth of the weight. The share of clients that stay falls from 1/2 to 2/5.
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: seenFrom(0, [][]int{{1, 1}, {1, 1, 1, 1, 1, 1, 1, 1}})}})
	if got := moved(before, where(b)); got < n/5 || got > n*27/100 {
		t.Errorf("%d of %d clients moved, want about %d", got, n, n/10+n/2/4)
	}
}

// A near endpoint in a slow start keeps few clients near at first, and its full share in the end.
func TestSlowStartOfANearEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zones := [][]int{{}, {1, 1, 1}}
		b := balanced(Options{Prefer: PreferFair, SlowStart: 10 * time.Second}, seenFrom(0, zones)...)
		zones[0] = []int{1}
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: seenFrom(0, zones)}})
		for _, tt := range []struct {
			at   time.Duration
			stay float64 // 2·share/(3+share)
		}{{0, .2 / 3.1}, {5 * time.Second, 1 / 3.5}, {6 * time.Second, .5}} {
			time.Sleep(tt.at)
			if got := float64(stay(t, b, 3000)) / 3000; math.Abs(got-tt.stay) > .02 {
				t.Errorf("%v later: %.3f stay, want %.3f", tt.at, got, tt.stay)
			}
		}
	})
}

// While too many endpoints are ejected, ejections count neither for picks nor for shares.
func TestPreferenceWhileEjectionsAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{Prefer: PreferFair}, nearTwoOfEight()...)
		w := &world{balancers: []*RoundRobin{b}}
		for _, id := range []string{"a0", "a1", "b0", "b1", "b2"} {
			w.eject(id)
		}
		if got := stay(t, b, 1000); got != 500 {
			t.Errorf("%d of 1000 stay, want 500", got)
		}
		s := b.Snapshot()[0]
		if !s.Panicking || s.Near.Share != 0.5 || s.Near.Zones != 2 || s.Near.Weight != 0.25 ||
			s.Near.Stayed != 500 || s.Near.Left != 500 {
			t.Errorf("got %+v, %+v", s, s.Near)
		}
	})
}

// A change of the zone or of the preference keeps the open uses, and counts at once.
func TestZonesAndPreferenceChange(t *testing.T) {
	b := balanced(Options{}, nearTwoOfEight()...)
	if s := b.Snapshot()[0]; s.Near != nil || stay(t, b, 800) != 200 {
		t.Errorf("without preference: got %+v", s.Near)
	}
	m, err := b.NextEndpoint("web", client, Tried{})
	if err != nil {
		t.Fatal(err)
	}
	b.Configure("web", Options{Prefer: PreferStrict})
	if got := stay(t, b, 800); got != 800 {
		t.Errorf("strict: %d of 800 stay", got)
	}
	elsewhere := nearTwoOfEight()
	for i := range elsewhere { // all are near, then none is
		elsewhere[i].Near, elsewhere[i].Zone = true, "a"
	}
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: elsewhere}})
	s := b.Snapshot()[0]
	if m.Left() || s.Open != 1 || s.Near.Share != 1 || s.Near.Zones != 1 || stay(t, b, 800) != 200 {
		t.Errorf("all near: got %+v, %+v", s, s.Near)
	}
	for i := range elsewhere {
		elsewhere[i].Near, elsewhere[i].Zone = false, ""
	}
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: elsewhere}})
	if s := b.Snapshot()[0]; s.Near.Share != 0 || s.Near.Zones != 1 || stay(t, b, 800) != 200 {
		t.Errorf("none near: got %+v, %+v", s, s.Near)
	}
	m.Done()
}

// In sets so large that picks cannot look at each endpoint, near endpoints are found, and shares hold.
func TestPreferenceInLargeSets(t *testing.T) {
	for _, p := range allPolicies() {
		set := sized(3000, true)
		for i := range set {
			set[i].Zone = fmt.Sprint(i % 3)
			if set[i].Near = i%3 == 0 && i < 1500; i%3 == 0 && i >= 1500 {
				set[i].Zone = "1"
			}
		}
		b := balanced(Options{Policy: p, Prefer: PreferFair}, set...)
		const n = 5000
		picked := map[string]int{}
		for i := range n {
			m, err := b.NextEndpoint("web", from(i), Tried{})
			if err != nil {
				t.Fatal(err)
			}
			picked[m.Zone]++
			m.Done()
		}
		// The weights are 1:3:2. Half of the clients stay, and zone 1 alone has room.
		for zone, want := range map[string]int{"0": n / 2, "1": n / 2, "2": 0} {
			if got := picked[zone]; math.Abs(float64(got-want)) > n/30 {
				t.Errorf("%v: zone %s has %d picks, want %d", p, zone, got, want)
			}
		}
	}
}

func TestPreferenceAllocatesNothing(t *testing.T) {
	for _, p := range allPolicies() {
		b := balanced(Options{Policy: p, Prefer: PreferFair}, nearTwoOfEight()...)
		i := 0
		if n := testing.AllocsPerRun(1000, func() {
			m, err := b.NextEndpoint("web", from(i&63), Tried{})
			if err != nil {
				t.Fatal(err)
			}
			m.Done()
			i++
		}); n != 0 {
			t.Errorf("%v: %v allocations", p, n)
		}
	}
}

// BenchmarkPreference compares a use with and without preference.
func BenchmarkPreference(b *testing.B) {
	for _, p := range allPolicies() {
		for _, prefer := range []Preference{PreferNone, PreferFair, PreferStrict} {
			o := Options{Policy: p, Prefer: prefer}
			benchUse(b, fmt.Sprintf("%v/%v", p, prefer), balanced(o, nearTwoOfEight()...), Tried{})
		}
	}
}

// Picks may run while endpoints are ejected, return, and change their zones.
func TestPreferenceUnderConcurrentChanges(t *testing.T) {
	b := balanced(Options{Prefer: PreferStrict, SlowStart: time.Millisecond}, nearTwoOfEight()...)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range 5000 {
				m, err := b.NextEndpoint("web", from(i), Tried{})
				if err != nil {
					t.Error(err)
					return
				}
				if i%50 == 0 {
					m.Failed(Refused)
				} else {
					m.Reached()
				}
				m.Done()
			}
		})
	}
	wg.Go(func() {
		for i := range 300 {
			set := nearTwoOfEight()
			for j := range set {
				set[j].Zone, set[j].Near = fmt.Sprint((i+j)%4), (i+j)%4 == 0
			}
			b.OnUpdate([]Endpoints{{Service: "web", Endpoints: set}})
			b.Snapshot()
		}
	})
	wg.Wait()
	v, _ := b.services.Load("web")
	if n := len(v.(*group).zones); n != 4 {
		t.Errorf("%d zones are remembered, want 4", n)
	}
}
