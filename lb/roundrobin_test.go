package lb

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
)

// inOrder returns a RoundRobin that does not shuffle.
func inOrder() *RoundRobin {
	b := NewRoundRobin()
	b.shuffle = func(int, func(i, j int)) {}
	return b
}

var client = netip.MustParseAddrPort("127.0.0.1:50000")

func TestRoundRobinErrors(t *testing.T) {
	b := inOrder()
	if _, err := b.NextEndpoint("web", client, Tried{}); !errors.Is(err, ErrMissingServiceEntry) {
		t.Errorf("unknown service: got %v, want ErrMissingServiceEntry", err)
	}
	b.OnUpdate([]Endpoints{{Service: "web"}})
	if _, err := b.NextEndpoint("web", client, Tried{}); !errors.Is(err, ErrMissingEndpoints) {
		t.Errorf("empty service: got %v, want ErrMissingEndpoints", err)
	}
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1)}})
	var tried Tried
	tried.Add("A")
	if _, err := b.NextEndpoint("web", client, tried); !errors.Is(err, ErrMissingEndpoints) {
		t.Errorf("all tried: got %v, want ErrMissingEndpoints", err)
	}
	b.OnUpdate([]Endpoints{{Service: "web", Removed: true}})
	if _, err := b.NextEndpoint("web", client, Tried{}); !errors.Is(err, ErrMissingServiceEntry) {
		t.Errorf("removed service: got %v, want ErrMissingServiceEntry", err)
	}
}

func TestUpdateLeavesOtherServicesAlone(t *testing.T) {
	b := inOrder()
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1, 1)}, {Service: "db", Endpoints: named(1)}})
	b.OnUpdate([]Endpoints{{Service: "db"}})
	if e, err := b.NextEndpoint("web", client, Tried{}); err != nil || e.ID != "A" {
		t.Errorf("got %v, %v, want A", e, err)
	}
}

// pick returns the member of "web" with the given ID.
func pick(t *testing.T, b *RoundRobin, id string) *Member {
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

func TestMemberLeaves(t *testing.T) {
	moved := endpoint("A", 1)
	moved.Addr = netip.MustParseAddrPort("10.0.0.9:80")
	for _, tt := range []struct {
		name   string
		update Endpoints
		left   bool
	}{
		{"same set", Endpoints{Service: "web", Endpoints: named(1, 1)}, false},
		{"another weight", Endpoints{Service: "web", Endpoints: named(5, 1)}, false},
		{"another one joins", Endpoints{Service: "web", Endpoints: named(1, 1, 1)}, false},
		{"another one leaves", Endpoints{Service: "web", Endpoints: named(1)}, false},
		{"another service goes", Endpoints{Service: "db", Removed: true}, false},
		{"leaves", Endpoints{Service: "web", Endpoints: named(1, 1)[1:]}, true},
		{"moves to another address", Endpoints{Service: "web", Endpoints: []Endpoint{moved}}, true},
		{"empty set", Endpoints{Service: "web"}, true},
		{"service goes", Endpoints{Service: "web", Removed: true}, true},
	} {
		b := inOrder()
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1, 1)}, {Service: "db"}})
		a := pick(t, b, "A")
		b.OnUpdate([]Endpoints{tt.update})
		if got := a.Left(); got != tt.left {
			t.Errorf("%s: left %v, want %v", tt.name, got, tt.left)
		}
	}
}

// An endpoint that comes back gets a new member: the old member stays left.
func TestMemberThatLeftStaysSo(t *testing.T) {
	b := inOrder()
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1)}})
	old := pick(t, b, "A")
	b.OnUpdate([]Endpoints{{Service: "web"}})
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1)}})
	if !old.Left() || pick(t, b, "A").Left() {
		t.Errorf("left: old %v, new %v, want true and false", old.Left(), pick(t, b, "A").Left())
	}
}

func TestMemberCountsOverAChangeOfWeight(t *testing.T) {
	b := inOrder()
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1)}})
	first := pick(t, b, "A")
	first.Failed(Unreachable)
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(3)}})
	second := pick(t, b, "A")
	if second.Weight != 3 || second.open.Load() != 2 || second.failed.Load() != 1 {
		t.Errorf("got weight %d, %d open, %d failed, want 3, 2, 1",
			second.Weight, second.open.Load(), second.failed.Load())
	}
	first.Done()
	second.Done()
	if n := second.open.Load(); n != 0 {
		t.Errorf("got %d open, want 0", n)
	}
}

func TestUndialableAndRepeatedEndpointsAreLeftOut(t *testing.T) {
	b := inOrder()
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: []Endpoint{
		{ID: "no address", Addr: netip.AddrPortFrom(netip.Addr{}, 80)},
		{ID: "no port", Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), 0)},
		{ID: "good", Addr: netip.MustParseAddrPort("10.0.0.2:80")},
		{ID: "good", Addr: netip.MustParseAddrPort("10.0.0.3:80")},
		{ID: "name", Host: "db.example.com", Addr: netip.AddrPortFrom(netip.Addr{}, 5432)},
	}}})
	for _, want := range []string{"10.0.0.2:80", "db.example.com:5432", "10.0.0.2:80"} {
		if e, err := b.NextEndpoint("web", client, Tried{}); err != nil || e.Address() != want {
			t.Errorf("got %v, %v, want %s", e, err, want)
		}
	}
}

func TestOnUpdateKeepsNoReference(t *testing.T) {
	b := inOrder()
	set := named(1, 1)
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: set}})
	set[0] = Endpoint{ID: "changed by its owner"}
	if e, _ := b.NextEndpoint("web", client, Tried{}); e.ID != "A" {
		t.Errorf("got %q, want A", e.ID)
	}
}

func TestFirstOrderIsShuffled(t *testing.T) {
	firsts := map[string]bool{}
	for range 200 {
		b := NewRoundRobin()
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1, 1, 1)}})
		e, _ := b.NextEndpoint("web", client, Tried{})
		firsts[e.ID] = true
	}
	if len(firsts) != 3 {
		t.Errorf("200 balancers began with %v only, want each endpoint to come first somewhere", firsts)
	}
}

// Concurrent picks are exact too: each turn is taken once, even during updates of other services.
func TestConcurrentPicksAndUpdatesAreFair(t *testing.T) {
	b := NewRoundRobin()
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1, 1, 1)}})
	const pickers, picks = 8, 3000
	stop := make(chan struct{})
	var updates, wg sync.WaitGroup
	updates.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			set := named(1, 1, 1)
			if i%2 == 0 {
				set = append(set, endpoint("X", 1))
			}
			b.OnUpdate([]Endpoints{{Service: "web", Endpoints: set},
				{Service: fmt.Sprint("other", i%10), Removed: i%3 == 0}})
		}
	})
	var mu sync.Mutex
	counts := map[string]int{}
	for range pickers {
		wg.Go(func() {
			mine := map[string]int{}
			for range picks {
				e, err := b.NextEndpoint("web", client, Tried{})
				if err != nil {
					t.Error(err)
					return
				}
				mine[e.ID]++
			}
			mu.Lock()
			defer mu.Unlock()
			for id, n := range mine {
				counts[id] += n
			}
		})
	}
	wg.Wait()
	close(stop)
	updates.Wait()
	lo, hi := pickers*picks, 0
	for _, id := range []string{"A", "B", "C"} {
		lo, hi = min(lo, counts[id]), max(hi, counts[id])
	}
	if hi-lo > 1 {
		t.Errorf("got %v: A, B and C differ by %d, want 1 at most", counts, hi-lo)
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	b := NewRoundRobin()
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(3, 1, 1)}})
	var tried Tried
	tried.Add("B")
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := b.NextEndpoint("web", client, tried); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a pick allocates %v times, want 0", n)
	}
}

func TestTriedForgetsTheOldest(t *testing.T) {
	var tried Tried
	for i := range MaxTried + 2 {
		tried.Add(fmt.Sprint(i))
	}
	if tried.Len() != MaxTried || tried.Has("1") || !tried.Has("2") || !tried.Has(fmt.Sprint(MaxTried+1)) {
		t.Errorf("got %v, want the last %d", tried, MaxTried)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, bm := range []struct {
		name      string
		endpoints int
		weight    func(i int) int
	}{
		{"equal/2", 2, func(int) int { return 1 }},
		{"equal/10", 10, func(int) int { return 1 }},
		{"equal/1000", 1000, func(int) int { return 1 }},
		{"weighted/10", 10, func(i int) int { return 1 + i%5 }},
		{"weighted/1000", 1000, func(i int) int { return 1 + i%5 }},
	} {
		lb := NewRoundRobin()
		var set []Endpoint
		for i := range bm.endpoints {
			set = append(set, endpoint(fmt.Sprint(i), bm.weight(i)))
		}
		lb.OnUpdate([]Endpoints{{Service: "web", Endpoints: set}})
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				lb.NextEndpoint("web", client, Tried{})
			}
		})
		b.Run(bm.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					lb.NextEndpoint("web", client, Tried{})
				}
			})
		})
	}
}
