package lb

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// balanced returns a RoundRobin with one service "web", which has the given endpoints in the given order.
func balanced(o Options, endpoints ...Endpoint) *RoundRobin {
	b := NewRoundRobin()
	b.shuffle = func(int, func(i, j int)) {}
	b.Configure("web", o)
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: endpoints}})
	return b
}

// picks makes n first picks of "web", each of which ends at once, and returns the IDs in order.
func picks(t testing.TB, b *RoundRobin, n int) string {
	t.Helper()
	s := ""
	for range n {
		m, err := b.NextEndpoint("web", client, Tried{})
		if err != nil {
			t.Fatal(err)
		}
		s += m.ID
		m.Done()
	}
	return s
}

// member picks "web" until it gets the endpoint with the given ID.
func member(t testing.TB, b *RoundRobin, id string) *Member {
	t.Helper()
	for range 100 {
		m, err := b.NextEndpoint("web", client, Tried{})
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == id {
			return m
		}
		m.Done()
	}
	t.Fatalf("no pick of %s", id)
	return nil
}

// fails makes the endpoint with the given ID fail with these causes, in one use that then ends.
func fails(t testing.TB, b *RoundRobin, id string, causes ...Cause) {
	t.Helper()
	m := member(t, b, id)
	for _, c := range causes {
		m.Failed(c)
	}
	m.Done()
}

func TestFailuresEject(t *testing.T) {
	for _, tt := range []struct {
		name    string
		max     int
		happens func(m *Member)
		want    string // endpoints picked afterwards
	}{
		{"refused once", 0, func(m *Member) { m.Failed(Refused) }, "ACDACD"},
		{"refused once, though five are allowed", 5, func(m *Member) { m.Failed(Refused) }, "ACDACD"},
		{"unreachable once", 0, func(m *Member) { m.Failed(Unreachable) }, "ABCDAB"},
		{"unreachable twice", 0, func(m *Member) { m.Failed(Unreachable); m.Failed(Unreachable) }, "ACDACD"},
		{"unreachable four times of five", 5, func(m *Member) {
			for range 4 {
				m.Failed(Unreachable)
			}
		}, "ABCDAB"},
		{"connected in between", 0, func(m *Member) { m.Failed(Unreachable); m.Connected(); m.Failed(Unreachable) },
			"ABCDAB"},
		{"reset twice", 0, func(m *Member) { m.Failed(Reset); m.Failed(Reset) }, "ACDACD"},
		{"reset, connected, and reset again", 0, func(m *Member) { m.Failed(Reset); m.Connected(); m.Failed(Reset) },
			"ACDACD"},
		{"reset, reached, and reset again", 0, func(m *Member) { m.Failed(Reset); m.Reached(); m.Failed(Reset) },
			"ABCDAB"},
		{"off", -1, func(m *Member) { m.Failed(Refused); m.Failed(Refused) }, "ABCDAB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(Options{MaxFails: tt.max}, named(1, 1, 1, 1)...)
				m := member(t, b, "B")
				tt.happens(m)
				m.Done()
				picks(t, b, 2)
				if got := picks(t, b, 6); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// Each service that uses an address counts the address's ejections. The count stays when the endpoint leaves.
func TestEjectionsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := named(1, 1)
		b := balanced(Options{MinAvailable: -1}, members...)
		b.OnUpdate([]Endpoints{{Service: "other", Endpoints: members[:1]}})
		count := func() (web, other int64) {
			all := b.Snapshot()
			return all[1].Ejections, all[0].Ejections
		}
		fails(t, b, "A", Refused, Refused) // the second failure changes nothing
		if web, other := count(); web != 1 || other != 1 {
			t.Errorf("got %d and %d ejections, want 1 of each service", web, other)
		}
		time.Sleep(2 * minEjection)
		fails(t, b, "A", Refused) // the trial
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: members[1:]}})
		if web, other := count(); web != 2 || other != 2 {
			t.Errorf("got %d and %d ejections, want 2 of each service", web, other)
		}
	})
}

// Each service that uses an address is told when the address is ejected, once for all ejections in a row, and when the
// ejection ends.
func TestHealthChangesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewRoundRobin()
		var told []HealthChange
		b.NotifyHealth(func(c HealthChange) { told = append(told, c) })
		b.Configure("blind", Options{MaxFails: -1})
		for _, name := range []string{"api", "blind", "web"} {
			b.OnUpdate([]Endpoints{{Service: name, Endpoints: named(1, 1)}})
		}
		want := func(ejected bool, services ...string) {
			t.Helper()
			slices.SortFunc(told, func(a, b HealthChange) int { return strings.Compare(a.Service, b.Service) })
			for i, c := range told {
				if i >= len(services) || c.Service != services[i] || c.Endpoint != "A" || c.Ejected != ejected ||
					ejected && (c.Cause != Refused || c.TryIn < quickEjection/2 || c.TryIn > 2*quickEjection) {
					t.Errorf("told %+v", c)
				}
			}
			if len(told) != len(services) {
				t.Errorf("told %d times, want %d", len(told), len(services))
			}
			told = nil
		}
		fails(t, b, "A", Unreachable)
		want(true)
		fails(t, b, "A", Refused)
		want(true, "api", "web")
		time.Sleep(2 * time.Second)
		fails(t, b, "A", Refused) // at the trial
		want(true)
		time.Sleep(10 * time.Second)
		m := member(t, b, "A")
		want(false)
		m.Connected()
		want(false, "api", "web")
		m.Reached()
		m.Done()
		want(false)
	})
}

// An endpoint that refuses is tried twenty times after 50 ms. Then the time doubles from 1 s to 60 s. Each time is
// jittered by a fifth. After that time, one use tries the endpoint, and no other use tries the endpoint until the
// result is known.
func TestEjectionDoublesAndOneTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{}, named(1, 1, 1)...)
		fails(t, b, "B", Refused)
		times := slices.Repeat([]time.Duration{50 * time.Millisecond}, 20)
		for _, seconds := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			times = append(times, seconds*time.Second)
		}
		for _, want := range times {
			time.Sleep(want*8/10 - time.Millisecond)
			for range 30 {
				if m, _ := b.NextEndpoint("web", client, Tried{}); m.ID == "B" {
					t.Fatalf("a trial began before %v", want*8/10)
				}
			}
			time.Sleep(want*4/10 + 2*time.Millisecond)
			m := member(t, b, "B")
			for range 30 {
				if m, _ := b.NextEndpoint("web", client, Tried{}); m.ID == "B" {
					t.Fatal("a second use of the endpoint during a trial")
				}
			}
			m.Failed(Refused)
			m.Done()
		}
		time.Sleep(72 * time.Second)
		m := member(t, b, "B")
		m.Connected()
		m.Done()
		picks(t, b, 3)
		if got := picks(t, b, 3); got != "ABC" && got != "BCA" && got != "CAB" {
			t.Errorf("afterwards got %s, want all in turn", got)
		}
		fails(t, b, "B", Refused)
		time.Sleep(quickEjection*12/10 + 1)
		member(t, b, "B") // after a success, the times start over
	})
}

// A trial may cost a client its connection if the endpoint does not refuse, so the first trial comes later. After a
// reset, one quick trial comes first, because by then a killed process refuses.
func TestQuickEjections(t *testing.T) {
	const quick, slow = quickEjection, minEjection
	for _, tt := range []struct {
		name    string
		network Network
		causes  []Cause // of ejections in a row
		want    []time.Duration
	}{
		{"refused", TCP, []Cause{Refused, Refused, Refused}, []time.Duration{quick, quick, quick}},
		{"refused over UDP", UDP, []Cause{Refused, Refused}, []time.Duration{slow, 2 * slow}},
		{"unreachable", TCP, []Cause{Unreachable, Unreachable}, []time.Duration{slow, 2 * slow}},
		{"reset", TCP, []Cause{Reset, Reset, Reset}, []time.Duration{quick, slow, 2 * slow}},
		{"reset, and refused then", TCP, []Cause{Reset, Refused, Refused}, []time.Duration{quick, quick, quick}},
		{"no longer refused", TCP, []Cause{Refused, Unreachable, Refused}, []time.Duration{quick, slow, 2 * slow}},
		{"no longer refused, and reset", TCP, []Cause{Refused, Reset, Reset}, []time.Duration{quick, slow, 2 * slow}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(Options{Network: tt.network, MinAvailable: -1}, named(1, 1)...)
				for i, c := range tt.causes {
					fails(t, b, "B", c, c) // the second one of a trial is no news
					e := b.Snapshot()[0].Endpoints[1]
					if e.State != StateEjected || e.TryIn < tt.want[i]*8/10 || e.TryIn > tt.want[i]*12/10 {
						t.Fatalf("%v: %v for %v, want ejected for %v", c, e.State, e.TryIn, tt.want[i])
					}
					if e.Ejections != i+1 {
						t.Errorf("ejected %d times, want %d", e.Ejections, i+1)
					}
					time.Sleep(e.TryIn)
				}
			})
		})
	}
}

// TestTrials checks which reports end a trial, and how the trial ends.
func TestTrials(t *testing.T) {
	for _, tt := range []struct {
		name    string
		network Network
		cause   Cause
		happens func(m *Member)
		back    bool // the ejection ends at once
		tried   bool // another use tries the endpoint
	}{
		{"nothing is known yet", TCP, Refused, func(m *Member) {}, false, false},
		{"it is over before anything was known", TCP, Refused, func(m *Member) { m.Done() }, false, true},
		{"connected", TCP, Refused, func(m *Member) { m.Connected() }, true, false},
		{"connected, where it was unreachable", TCP, Unreachable, func(m *Member) { m.Connected() }, true, false},
		{"connected, where it was reset", TCP, Reset, func(m *Member) { m.Connected() }, false, false},
		{"connected and over, where it was reset",
			TCP, Reset, func(m *Member) { m.Connected(); m.Done() }, true, false},
		{"connected and silent, where it was reset", TCP, Reset,
			func(m *Member) { m.Connected(); time.Sleep(trialSilence) }, true, false},
		{"reached, where it was reset", TCP, Reset, func(m *Member) { m.Connected(); m.Reached() }, true, false},
		{"accepted, and not answered yet", TCP, Refused, func(m *Member) { m.Accepted() }, false, false},
		{"accepted and answered", TCP, Refused, func(m *Member) { m.Accepted(); m.Reached() }, true, false},
		{"accepted and silent", TCP, Unreachable,
			func(m *Member) { m.Accepted(); time.Sleep(trialSilence) }, true, false},
		{"accepted and over", TCP, Unreachable, func(m *Member) { m.Accepted(); m.Done() }, true, false},
		{"denied", TCP, Refused, func(m *Member) { m.Denied(ErrDenied); m.Done() }, false, true},
		{"accepted and denied", TCP, Refused,
			func(m *Member) { m.Accepted(); m.Denied(ErrDenied); m.Done() }, false, true},
		{"accepted and not answered", TCP, Reset,
			func(m *Member) { m.Accepted(); m.Unanswered(); m.Done() }, false, true},
		{"reset again", TCP, Reset, func(m *Member) { m.Connected(); m.Failed(Reset); m.Done() }, false, false},
		{"no datagram yet", UDP, Refused, func(m *Member) {}, false, false},
		{"no datagram, and no refusal", UDP, Refused, func(m *Member) { time.Sleep(trialSilence) }, true, false},
		{"no datagram, and over at once", UDP, Refused, func(m *Member) { m.Done() }, false, false},
		{"over, and refused then", UDP, Refused,
			func(m *Member) { m.Done(); m.Failed(Refused); time.Sleep(trialSilence) }, false, false},
		{"a datagram", UDP, Refused, func(m *Member) { m.Reached() }, true, false},
		{"refused again", UDP, Refused, func(m *Member) { m.Failed(Refused) }, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(Options{Network: tt.network}, named(1, 1, 1)...)
				fails(t, b, "B", tt.cause, tt.cause)
				time.Sleep(1200*time.Millisecond + 1)
				m := member(t, b, "B")
				tt.happens(m)
				n := 0
				for range 30 {
					if m, _ := b.NextEndpoint("web", client, Tried{}); m.ID == "B" {
						n++
					}
				}
				switch {
				case tt.back && (n < 9 || n > 11):
					t.Errorf("%d of 30 picks then, want its share", n)
				case tt.tried && n != 1, !tt.tried && !tt.back && n != 0:
					t.Errorf("%d of 30 picks then", n)
				}
			})
		})
	}
}

func TestAllServicesShareWhatIsKnownOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := named(1, 1, 1)
		b := balanced(Options{}, set...)
		other := named(1, 1, 1)
		for i := range other {
			other[i].ID = "other " + other[i].ID
		}
		b.OnUpdate([]Endpoints{{Service: "api", Endpoints: other}})
		b.Configure("dns", Options{Network: UDP})
		b.OnUpdate([]Endpoints{{Service: "dns", Endpoints: set}})
		fails(t, b, "B", Refused)
		count := func(service string, n int) (b2 int) {
			for range n {
				m, err := b.NextEndpoint(service, client, Tried{})
				if err != nil {
					t.Fatal(err)
				}
				if m.Addr == set[1].Addr {
					b2++
				}
			}
			return b2
		}
		if n := count("api", 30); n != 0 {
			t.Errorf("another service picked it %d times, want never", n)
		}
		if n := count("dns", 30); n != 10 {
			t.Errorf("over UDP it was picked %d times of 30, want 10", n)
		}
		time.Sleep(1200*time.Millisecond + 1)
		if n := count("api", 30) + count("web", 30); n != 1 {
			t.Errorf("two services tried it %d times, want once", n)
		}
	})
}

// Consul may remove an instance and add it again; that says nothing about whether the instance answers.
func TestEjectionOutlivesTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{}, named(1, 1, 1)...)
		fails(t, b, "B", Refused)
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: without(named(1, 1, 1), "B")}})
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1, 1, 1)}})
		if got := picks(t, b, 4); got != "ACAC" && got != "CACA" {
			t.Errorf("got %s, want B left out", got)
		}
		b.OnUpdate([]Endpoints{{Service: "web", Removed: true}})
		time.Sleep(3 * maxEjection)
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1)}})
		b.OnUpdate([]Endpoints{{Service: "web"}})
		if n := len(b.registry.healths); n != 0 {
			t.Errorf("%d addresses are still remembered", n)
		}
	})
}

// While some endpoints are ejected, the others keep exactly their shares. An endpoint that comes back gets no burst.
func TestRotationIsExactOverEjections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{MinAvailable: -1}, named(3, 2, 1, 4)...)
		counts := func(s string) (n [4]int) {
			for _, c := range s {
				n[c-'A']++
			}
			return n
		}
		fails(t, b, "D", Refused)
		for range 50 {
			if got := counts(picks(t, b, 6)); got != [4]int{3, 2, 1, 0} {
				// The rotation of ten turns has four passing turns, so six picks need not be one round of it.
				if got := counts(picks(t, b, 6)); got[3] != 0 {
					t.Fatalf("got %v", got)
				}
			}
		}
		if got := counts(picks(t, b, 600)); got != [4]int{300, 200, 100, 0} {
			t.Errorf("600 picks without D: got %v, want 300, 200, 100", got)
		}
		time.Sleep(1200*time.Millisecond + 1)
		m := member(t, b, "D")
		m.Connected()
		m.Done()
		for range 20 {
			if got := counts(picks(t, b, 10)); got[3] > 5 {
				t.Errorf("10 picks after D came back: got %v, want no burst", got)
			}
		}
		if got := counts(picks(t, b, 1000)); got != [4]int{300, 200, 100, 400} {
			t.Errorf("1000 picks with D: got %v, want 300, 200, 100, 400", got)
		}
	})
}

func TestTooManyEjectionsAreIgnored(t *testing.T) {
	for _, tt := range []struct {
		name      string
		least     int
		endpoints int
		dead      string
		want      string // endpoints that are picked
	}{
		{"one of one", 0, 1, "A", "A"},
		{"one of two is half, and not less", 0, 2, "A", "B"},
		{"two of three", 0, 3, "AB", "ABC"},
		{"two of four", 0, 4, "AB", "CD"},
		{"three of four", 0, 4, "ABC", "ABCD"},
		{"one of two at 60 %", 60, 2, "A", "AB"},
		{"three of four at 25 %", 25, 4, "ABC", "D"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				weights := []int{1, 1, 1, 1}[:tt.endpoints]
				b := balanced(Options{MinAvailable: tt.least}, named(weights...)...)
				var members []*Member
				for _, id := range tt.dead {
					members = append(members, member(t, b, string(id)))
				}
				for _, m := range members {
					m.Failed(Refused)
					m.Done()
				}
				seen := map[rune]bool{}
				for _, c := range picks(t, b, 20) {
					seen[c] = true
				}
				got := ""
				for _, c := range "ABCD" {
					if seen[c] {
						got += string(c)
					}
				}
				if got != tt.want {
					t.Errorf("picks of %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// Even when ejections are ignored, a client gets an endpoint that is known to answer after a failed attempt, if there
// is such an endpoint.
func TestRetryPrefersWhoAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{}, named(1, 1, 1, 1, 1)...)
		for _, id := range []string{"A", "B", "C", "D"} {
			m := member(t, b, id)
			m.Failed(Refused)
			m.Done()
		}
		for range 20 {
			var tried Tried
			first, err := b.NextEndpoint("web", client, tried)
			if err != nil {
				t.Fatal(err)
			}
			tried.Add(first.ID)
			if m, err := b.NextEndpoint("web", client, tried); first.ID != "E" && (err != nil || m.ID != "E") {
				t.Fatalf("after %s got %v, %v, want E", first.ID, m, err)
			}
		}
	})
}

// Of many concurrent picks, for several services, exactly one tries an ejected endpoint.
func TestConcurrentPicksTryOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{}, named(1, 1, 1)...)
		b.OnUpdate([]Endpoints{{Service: "api", Endpoints: named(1, 1, 1)}})
		for range 50 {
			fails(t, b, "B", Refused)
			time.Sleep(1200*time.Millisecond + 1)
			var tries atomic.Int32
			trials := make(chan *Member, 1600)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					for range 20 {
						if m, err := b.NextEndpoint([]string{"web", "api"}[i%2], client, Tried{}); err == nil &&
							m.ID == "B" {
							tries.Add(1)
							trials <- m
						}
					}
				})
			}
			wg.Wait()
			if n := tries.Load(); n != 1 {
				t.Fatalf("%d tried, want 1", n)
			}
			(<-trials).Reached()
		}
	})
}

// Many goroutines pick, fail, recover and update at once. In the end, when all endpoints answer, no failures are left.
func TestConcurrentFailures(t *testing.T) {
	b := balanced(Options{MinAvailable: -1}, named(1, 2, 1, 1)...)
	b.OnUpdate([]Endpoints{{Service: "api", Endpoints: named(1, 1, 1, 1)}})
	var wg sync.WaitGroup
	until := time.Now().Add(2500 * time.Millisecond)
	for i := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			service := []string{"web", "api"}[i%2]
			for n := 0; time.Now().Before(until); n++ {
				m, err := b.NextEndpoint(service, client, Tried{})
				if err != nil {
					continue
				}
				switch rnd.IntN(20) {
				case 0:
					m.Failed(Cause(1 + rnd.IntN(3)))
				case 1:
					m.Reached()
				case 2, 3:
					m.Connected()
				}
				m.Done()
				if n%100 == 0 {
					b.OnUpdate([]Endpoints{{Service: service, Endpoints: named(1, 1+rnd.IntN(3), 1, 1)}})
				}
			}
		})
	}
	wg.Wait()
	for _, service := range []string{"web", "api"} {
		v, _ := b.services.Load(service)
		g := v.(*group)
		for _, m := range g.state.Load().members {
			m.Reached()
			if n := m.open.Load(); n != 0 {
				t.Errorf("%s of %s has %d open uses, want 0", m.ID, service, n)
			}
		}
		if g.ejectedCount.Load() != 0 || g.open.Load() != 0 {
			t.Errorf("%s: %d ejected, %d open, want none", service, g.ejectedCount.Load(), g.open.Load())
		}
	}
	if got := len(picks(t, b, 100)); got != 100 {
		t.Error(got)
	}
}

// While ejections are ignored, every endpoint is still tried: an endpoint that is back is found within a round.
func TestPanicFindsAllThatAreBack(t *testing.T) {
	for _, p := range allPolicies()[:3] { // with source_hash, one client does not reach all endpoints
		t.Run(p.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(Options{Policy: p}, named(1, 1, 1, 1)...)
				alive := map[string]bool{}
				served := map[string]int{}
				ask := func() {
					var tried Tried
					for tried.Len() < 3 {
						m, err := b.NextEndpoint("web", client, tried)
						if err != nil {
							return
						}
						if alive[m.ID] {
							served[m.ID]++
							m.Connected()
							m.Done()
							return
						}
						m.Failed(Refused)
						m.Done()
						tried.Add(m.ID)
					}
				}
				for range 20 {
					ask()
				}
				alive["A"], alive["B"] = true, true
				for range 100 {
					ask()
				}
				if served["A"] < 10 || served["B"] < 10 || served["A"]+served["B"] < 90 {
					t.Errorf("got %v, want A and B to serve nearly all of 100", served)
				}
			})
		})
	}
}
