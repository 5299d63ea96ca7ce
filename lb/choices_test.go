package lb

import (
	"math"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestChoicesAreWhatPicksReturn compares the weights of Choices with the shares of many picks.
func TestChoicesAreWhatPicksReturn(t *testing.T) {
	near := func(weights ...int) []Endpoint { return seenFrom(0, [][]int{weights[:1], weights[1:]}) }
	for _, tt := range []struct {
		name      string
		options   Options
		endpoints []Endpoint
		happens   func(b *RoundRobin)
		choices   int // number of endpoints that may be picked
	}{
		{"weights", Options{}, named(3, 1, 6), nil, 3},
		{"one is ejected", Options{}, named(1, 1, 2), func(b *RoundRobin) { fails(t, b, "B", Refused) }, 2},
		{"so many are ejected that it does not count", Options{}, named(1, 2, 3),
			func(b *RoundRobin) { fails(t, b, "A", Refused); fails(t, b, "B", Refused) }, 3},
		{"all are ejected", Options{MinAvailable: -1}, named(1, 1),
			func(b *RoundRobin) { fails(t, b, "A", Refused); fails(t, b, "B", Refused) }, 0},
		{"ejections are ignored", Options{MaxFails: -1}, named(1, 1),
			func(b *RoundRobin) { fails(t, b, "A", Refused) }, 2},
		{"a slow start", Options{SlowStart: time.Hour}, named(4, 4), func(b *RoundRobin) {
			time.Sleep(time.Second)
			update(b, named(4, 4, 4)...)
			time.Sleep(30 * time.Minute)
		}, 3},
		{"near ones, as far as that is fair", Options{Prefer: PreferFair}, near(1, 3, 1), nil, 3},
		{"near ones with room for all", Options{Prefer: PreferFair}, near(4, 1, 1), nil, 1},
		{"near ones only", Options{Prefer: PreferStrict}, near(1, 9), nil, 1},
		{"no near one is left", Options{Prefer: PreferStrict}, near(1, 2, 1),
			func(b *RoundRobin) { fails(t, b, "a0", Refused) }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(tt.options, tt.endpoints...)
				if tt.happens != nil {
					tt.happens(b)
				}
				got, total := b.Choices("web"), 0
				if len(got.Choices) != tt.choices {
					t.Fatalf("got %d choices, want %d", len(got.Choices), tt.choices)
				}
				for _, c := range got.Choices {
					total += c.Weight
				}
				const n = 20000
				picked := map[string]float64{}
				for range n * min(1, tt.choices) {
					m, err := b.NextEndpoint("web", client, Tried{})
					if err != nil {
						t.Fatal(err)
					}
					picked[m.ID]++
					m.Done()
				}
				for _, c := range got.Choices {
					want := picked[c.Member.ID] / n
					if share := float64(c.Weight) / float64(total); math.Abs(share-want) > 0.02 {
						t.Errorf("%s has %.3f of the weight, and %.3f of the picks", c.Member.ID, share, want)
					}
					delete(picked, c.Member.ID)
				}
				if len(picked) > 0 {
					t.Errorf("picks return %v, which are no choices", picked)
				}
			})
		})
	}
	if got := NewRoundRobin().Choices("web"); len(got.Choices) > 0 {
		t.Errorf("an unknown service has the choices %v", got)
	}
}

// TestChoicesAreTold checks that each change of the Choices calls the callback, and that an ejection says when to look
// again.
func TestChoicesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, told := balanced(Options{}, named(1, 1, 1)...), 0
		b.NotifyChoices(func(service string) {
			if told++; service != "web" {
				t.Errorf("told of %q", service)
			}
		})
		changes := func(what string, f func()) Choices {
			t.Helper()
			told = 0
			f()
			if told == 0 {
				t.Errorf("%s: the callback was not called", what)
			}
			return b.Choices("web")
		}
		changes("an update", func() { update(b, named(1, 1, 1, 1)...) })
		changes("options", func() { b.Configure("web", Options{SlowStart: time.Second}) })
		after := changes("an ejection", func() { b.Choices("web").Choices[0].Member.Failed(Refused) })
		if after.Due || after.Next < quickEjection/2 || after.Next > 2*quickEjection || len(after.Choices) != 3 {
			t.Errorf("after an ejection: %+v", after)
		}
		time.Sleep(2 * quickEjection)
		if after = b.Choices("web"); !after.Due {
			t.Errorf("after the time of an ejection: %+v", after)
		}
		var m *Member
		if after = changes("a trial", func() { m = webGroup(b).trial() }); m == nil || after.Due {
			t.Fatalf("at the trial of %v: %+v", m, after)
		}
		after = changes("the end of an ejection", func() { m.Connected(); m.Done() })
		if slow := min(after.Choices[0].Weight, after.Choices[3].Weight); slow != choicesScale*minShare {
			t.Errorf("after the end of an ejection: %+v", after)
		}
		changes("a removal", func() { b.OnUpdate([]Endpoints{{Service: "web", Removed: true}}) })
		told = 0
		b.NotifyChoices(nil)
		update(b, named(1)...)
		if told > 0 {
			t.Error("told after the callback was removed")
		}
	})
}

// TestTryEjected checks that the Prober ends the ejection of an endpoint that listens again, though no client picks.
func TestTryEjected(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	other := Endpoint{ID: "B", Addr: netip.MustParseAddrPort("127.0.0.1:1")}
	b := balanced(Options{}, Endpoint{ID: "A", Addr: netip.MustParseAddrPort(l.Addr().String())}, other)
	p := NewProber(b)
	changed := make(chan struct{}, 1)
	b.NotifyChoices(func(string) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	b.Choices("web").Choices[0].Member.Failed(Refused)
	p.TryEjected("none")
	for {
		c := b.Choices("web")
		if slices.ContainsFunc(c.Choices, func(c Choice) bool { return c.Member.ID == "A" }) {
			break
		}
		if c.Due {
			p.TryEjected("web")
			c.Next = 0
		}
		if c.Next == 0 {
			c.Next = time.Minute
		}
		select {
		case <-changed:
		case <-time.After(c.Next):
		}
	}
	p.Close()
	if s := b.Snapshot()[0]; s.Open != 0 {
		t.Errorf("%d uses are open after the trial", s.Open)
	}
}
