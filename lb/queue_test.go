package lb

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fill picks "web" until the service is full.
func fill(t testing.TB, b *RoundRobin) (members []*Member) {
	t.Helper()
	for {
		m, err := b.NextEndpoint("web", from(len(members)), Tried{})
		if errors.Is(err, ErrFull) {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, m)
	}
}

func TestMaxConnections(t *testing.T) {
	for _, p := range allPolicies() {
		for _, tt := range []struct {
			name string
			o    Options
			want int
		}{
			{"per endpoint", Options{MaxPerEndpoint: 5}, 20},
			{"of the service", Options{MaxConnections: 7}, 7},
			{"both", Options{MaxPerEndpoint: 5, MaxConnections: 18}, 18},
		} {
			t.Run(fmt.Sprintf("%v/%s", p, tt.name), func(t *testing.T) {
				tt.o.Policy = p
				b := balanced(tt.o, named(1, 3, 1, 1)...)
				members := fill(t, b)
				if len(members) != tt.want {
					t.Fatalf("full with %d, want %d", len(members), tt.want)
				}
				counts := map[string]int{}
				for _, m := range members {
					counts[m.ID]++
				}
				for id, n := range counts {
					if tt.o.MaxPerEndpoint > 0 && n > tt.o.MaxPerEndpoint {
						t.Errorf("%s has %d", id, n)
					}
				}
				members[3].Done()
				if m, err := b.NextEndpoint("web", client, Tried{}); err != nil || tt.o.MaxConnections == 0 &&
					m.ID != members[3].ID {
					t.Errorf("with room again got %v, %v", m, err)
				}
				b.Configure("web", Options{Policy: p})
				if _, err := b.NextEndpoint("web", client, Tried{}); err != nil {
					t.Errorf("without limits: %v", err)
				}
			})
		}
	}
}

// While one endpoint is full, the others keep their shares. When the full endpoint is free again, it gets no burst.
func TestRotationIsExactWhileOneIsFull(t *testing.T) {
	b := balanced(Options{MaxPerEndpoint: 2}, named(1, 1, 1, 1)...)
	x, y := member(t, b, "B"), member(t, b, "B")
	if got := picks(t, b, 9); got != "CDACDACDA" {
		t.Errorf("got %s, want CDACDACDA", got)
	}
	x.Done()
	if got := picks(t, b, 8); got != "BCDABCDA" && got != "CDABCDAB" {
		t.Errorf("with room again got %s, want all in turn", got)
	}
	y.Done()
}

// A sticky client of a full endpoint goes to another endpoint, and later comes back.
func TestStickyClientOfAFullEndpoint(t *testing.T) {
	b := balanced(Options{Sticky: time.Hour, MaxPerEndpoint: 1}, named(1, 1)...)
	m, _ := b.NextEndpoint("web", client, Tried{})
	other, err := b.NextEndpoint("web", client, Tried{})
	if err != nil || other.ID == m.ID {
		t.Fatalf("got %v, %v, want the other one", other, err)
	}
	m.Done()
	other.Done()
	if again, _ := b.NextEndpoint("web", client, Tried{}); again.ID != m.ID {
		t.Errorf("got %s, want %s, as before", again.ID, m.ID)
	}
}

// When all other endpoints are full, a client does not get an ejected endpoint.
func TestFullIsNotMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{MaxPerEndpoint: 1}, named(1, 1)...)
		fails(t, b, "A", Refused)
		m := member(t, b, "B")
		if got, err := b.NextEndpoint("web", client, Tried{}); !errors.Is(err, ErrFull) {
			t.Errorf("got %v, %v, want ErrFull", got, err)
		}
		m.Done()
	})
}

func TestQueueIsServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{MaxPerEndpoint: 1, MaxQueue: 5, QueueTimeout: 10 * time.Second}, named(1, 1)...)
		members := fill(t, b)
		var mu sync.Mutex
		var got []string
		var granted []*Member
		var waiters []*Waiter
		for i := range 5 {
			w, err := b.Wait("web", from(i), Tried{}, func(m *Member, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					got = append(got, fmt.Sprint(i, " ", err))
					return
				}
				got = append(got, fmt.Sprint(i, " ", m.ID))
				granted = append(granted, m)
			})
			if err != nil {
				t.Fatal(err)
			}
			waiters = append(waiters, w)
		}
		if _, err := b.Wait("web", client, Tried{}, nil); !errors.Is(err, ErrFull) {
			t.Errorf("a sixth one: %v, want ErrFull", err)
		}
		if _, err := b.NextEndpoint("web", client, Tried{}); !errors.Is(err, ErrFull) {
			t.Errorf("a client that comes while others wait: %v, want ErrFull", err)
		}
		members[1].Done()
		if !waiters[1].Cancel() || waiters[1].Cancel() || waiters[0].Cancel() {
			t.Error("Cancel reports wrongly which client was in the queue")
		}
		members[0].Done()
		seen := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(got)
		}
		if got, want := seen(), []string{"0 " + members[1].ID, "2 " + members[0].ID}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		time.Sleep(10*time.Second + 1)
		synctest.Wait()
		late := seen()[2:]
		slices.Sort(late) // both at the same moment
		const full = " waited 10s: connection limit reached"
		if want := []string{"3" + full, "4" + full}; !slices.Equal(late, want) {
			t.Errorf("got %v, want %v", late, want)
		}
		for _, m := range granted {
			m.Done()
		}
		if got := picks(t, b, 4); got != "ABAB" && got != "BABA" {
			t.Errorf("afterwards got %s", got)
		}
	})
}

// Every event that frees capacity serves the queue.
func TestQueueIsServedWhateverMakesRoom(t *testing.T) {
	o := Options{MaxPerEndpoint: 1, MinAvailable: -1, MaxQueue: 10, QueueTimeout: time.Minute}
	for _, tt := range []struct {
		name    string
		happens func(b *RoundRobin, members []*Member)
		want    string
	}{
		{"one is done", func(b *RoundRobin, m []*Member) { m[0].Done() }, "A"},
		{"another one joins", func(b *RoundRobin, _ []*Member) {
			b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1, 1, 1)}})
		}, "C"},
		{"the limit is raised", func(b *RoundRobin, _ []*Member) {
			o := o
			o.MaxPerEndpoint = 2
			b.Configure("web", o)
		}, "A"},
		{"all leave", func(b *RoundRobin, _ []*Member) { b.OnUpdate([]Endpoints{{Service: "web"}}) },
			ErrMissingEndpoints.Error()},
		{"the service goes", func(b *RoundRobin, _ []*Member) {
			b.OnUpdate([]Endpoints{{Service: "web", Removed: true}})
		}, ErrMissingServiceEntry.Error()},
		{"time goes by", func(*RoundRobin, []*Member) { time.Sleep(time.Minute + 1) },
			"waited 1m0s: connection limit reached"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(o, named(1, 1)...)
				members := fill(t, b)
				got := ""
				w, err := b.Wait("web", client, Tried{}, func(m *Member, err error) {
					if err != nil {
						got = err.Error()
						return
					}
					got = m.ID
				})
				if err != nil {
					t.Fatal(err)
				}
				tt.happens(b, members)
				synctest.Wait()
				if got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				w.Cancel()
			})
		})
	}
}

func TestNoQueue(t *testing.T) {
	b := balanced(Options{MaxConnections: 1}, named(1)...)
	fill(t, b)
	if _, err := b.Wait("web", client, Tried{}, nil); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if _, err := b.Wait("db", client, Tried{}, nil); !errors.Is(err, ErrMissingServiceEntry) {
		t.Errorf("got %v, want ErrMissingServiceEntry", err)
	}
}

// With many clients and little capacity, no limit is ever exceeded, every client is served or leaves, and all capacity
// is free in the end.
func TestConcurrentQueue(t *testing.T) {
	b := balanced(Options{Policy: PolicyLeastConnections, MaxPerEndpoint: 3, MaxConnections: 5, MaxQueue: 1000,
		QueueTimeout: time.Minute}, named(1, 1)...)
	var inUse, most, served, left atomic.Int64
	serve := func(m *Member) {
		if n := inUse.Add(1); n > most.Load() {
			most.Store(n)
		}
		served.Add(1)
		time.Sleep(time.Duration(rand.IntN(50)) * time.Microsecond)
		inUse.Add(-1)
		m.Done()
	}
	const clients, each = 40, 200
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				m, err := b.NextEndpoint("web", client, Tried{})
				if errors.Is(err, ErrFull) {
					told := make(chan *Member, 1)
					w, err := b.Wait("web", client, Tried{}, func(m *Member, err error) {
						if err != nil {
							t.Error(err)
						}
						told <- m
					})
					if err != nil {
						t.Error(err)
						return
					}
					if rand.IntN(10) == 0 && w.Cancel() {
						left.Add(1)
						continue
					}
					m = <-told
				} else if err != nil {
					t.Error(err)
					return
				}
				if m != nil {
					serve(m)
				}
			}
		})
	}
	wg.Wait()
	if n := served.Load() + left.Load(); n != clients*each {
		t.Errorf("%d served and %d left, want %d together", served.Load(), left.Load(), clients*each)
	}
	if most.Load() > 5 {
		t.Errorf("%d uses at once, want 5 at most", most.Load())
	}
	v, _ := b.services.Load("web")
	if g := v.(*group); g.open.Load() != 0 || g.queue.waiting.Load() != 0 {
		t.Errorf("%d open and %d waiting, want none", g.open.Load(), g.queue.waiting.Load())
	}
}

// Waiting clients take turns, and the connections of one client are served in order. A client with many connections
// therefore delays other clients only by one connection at a time.
func TestQueueGivesClientsTurns(t *testing.T) {
	b := balanced(Options{MaxConnections: 1, MaxQueue: 100, QueueTimeout: time.Hour}, named(1)...)
	m, err := b.NextEndpoint("web", client, Tried{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var serving *Member
	wait := func(name string, n int) *Waiter {
		w, err := b.Wait("web", from(n), Tried{}, func(m *Member, err error) {
			got = append(got, name)
			serving = m
		})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	for i := range 4 {
		wait(fmt.Sprint("a", i), 1)
	}
	wait("b0", 2)
	gone := wait("c0", 3)
	wait("c1", 3)
	wait("b1", 2)
	gone.Cancel()
	for serving = m; len(got) < 7; {
		serving.Done() // Done serves the next waiter
	}
	serving.Done()
	if want := []string{"a0", "b0", "c1", "a1", "b1", "a2", "a3"}; !slices.Equal(got, want) {
		t.Errorf("served %v, want %v", got, want)
	}
	if q := &webGroup(b).queue; len(q.lines) != 0 || q.turns.Len() != 0 || q.waiting.Load() != 0 {
		t.Errorf("%d lines, %d turns, %d waiters are left", len(q.lines), q.turns.Len(), q.waiting.Load())
	}
}

// No single client can fill a queue: some slots stay free for other clients.
func TestQueueHasPlacesForOthers(t *testing.T) {
	b := balanced(Options{MaxConnections: 1, MaxQueue: 100, QueueTimeout: time.Hour}, named(1)...)
	if _, err := b.NextEndpoint("web", client, Tried{}); err != nil {
		t.Fatal(err)
	}
	places := func(addr string) (n int) {
		src := netip.AddrPortFrom(netip.MustParseAddr(addr), 1)
		for {
			_, err := b.Wait("web", src, Tried{}, func(*Member, error) {})
			if errors.Is(err, ErrFull) {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	for _, c := range []struct {
		addr string
		want int
	}{
		{"192.0.2.1", 80},
		{"192.0.2.2", 16},
		{"192.0.2.1", 0},
		{"2001:db8::1", 4}, // other addresses of the same /64 are the same client
		{"2001:db8::2", 0},
		{"192.0.2.3", 0}, // the queue is full
	} {
		if n := places(c.addr); n != c.want {
			t.Errorf("%s had %d more places, want %d", c.addr, n, c.want)
		}
	}
}

// A single client may take all slots of a short queue.
func TestShortQueueIsOneClients(t *testing.T) {
	for most := 1; most <= 4; most++ {
		b := balanced(Options{MaxConnections: 1, MaxQueue: most, QueueTimeout: time.Hour}, named(1)...)
		if _, err := b.NextEndpoint("web", client, Tried{}); err != nil {
			t.Fatal(err)
		}
		for i := range most {
			if _, err := b.Wait("web", client, Tried{}, func(*Member, error) {}); err != nil {
				t.Errorf("of %d places, place %d: %v", most, i+1, err)
			}
		}
	}
}
