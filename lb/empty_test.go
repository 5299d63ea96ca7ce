package lb

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// answers collects the results of waits, in order.
type answers struct {
	mu  sync.Mutex
	all []string
}

func (a *answers) add(name string, m *Member, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.all = append(a.all, name+": "+err.Error())
	} else {
		a.all = append(a.all, name+": "+m.ID)
	}
}

// want checks all results so far.
func (a *answers) want(t *testing.T, want ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(a.all, want) {
		t.Errorf("got %q, want %q", a.all, want)
	}
}

// await makes a client wait for an endpoint of "web", and adds the result to got.
func await(t *testing.T, b *RoundRobin, name string, src netip.AddrPort, tried Tried, got *answers) *Waiter {
	t.Helper()
	if m, err := b.NextEndpoint("web", src, tried); err != ErrFull {
		t.Fatalf("%s: got %v, %v from NextEndpoint, want ErrFull", name, m, err)
	}
	w, err := b.Wait("web", src, tried, func(m *Member, err error) { got.add(name, m, err) })
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return w
}

func update(b *RoundRobin, endpoints ...Endpoint) {
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: endpoints}})
}

// next returns the ID that the next client gets, or the error text.
func next(b *RoundRobin) string {
	m, err := b.NextEndpoint("web", client, Tried{})
	if err != nil {
		return err.Error()
	}
	defer m.Done()
	return m.ID
}

func emptyOptions() Options {
	return Options{MaxQueue: 10, QueueTimeout: time.Minute, EmptyWait: 3 * time.Second}
}

// Clients that wait for the first endpoint are served in the order of the queue when the endpoint comes.
func TestEmptyServiceWaitsForTheFirstEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(emptyOptions(), named(1)...)
		update(b)
		var got answers
		one, other := from(1), from(2)
		await(t, b, "one", one, Tried{}, &got)
		await(t, b, "one again", one, Tried{}, &got)
		left := await(t, b, "left", from(3), Tried{}, &got)
		await(t, b, "other", other, Tried{}, &got)
		left.Cancel()
		if s := b.Snapshot()[0]; s.Waiting != 3 || time.Until(s.EmptyUntil) != 3*time.Second {
			t.Errorf("got %d waiting until %v, want 3 for 3 s", s.Waiting, s.EmptyUntil)
		}
		time.Sleep(2 * time.Second)
		update(b) // changes nothing
		update(b, endpoint("X", 1))
		synctest.Wait()
		got.want(t, "one: X", "other: X", "one again: X")
		if s := b.Snapshot()[0]; s.Waiting != 0 || !s.EmptyUntil.IsZero() {
			t.Errorf("got %d waiting until %v, want none", s.Waiting, s.EmptyUntil)
		}
		if id := next(b); id != "X" {
			t.Errorf("the next client got %s, want X", id)
		}
	})
}

// The wait counts from the time when the service became empty, and ends for all clients at once.
func TestEmptyWaitIsOfTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(emptyOptions(), named(1)...)
		update(b)
		var got answers
		await(t, b, "early", from(1), Tried{}, &got)
		time.Sleep(3*time.Second - time.Millisecond)
		await(t, b, "late", from(2), Tried{}, &got)
		got.want(t)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		got.want(t, "early: no endpoints", "late: no endpoints")
		if id := next(b); id != "no endpoints" {
			t.Errorf("after the wait, a client got %q", id)
		}
		update(b, named(1)...)
		update(b) // empty once more
		await(t, b, "again", from(1), Tried{}, &got)
	})
}

// No client waits if the option is off, if the service never had an endpoint, or if it still has some.
func TestNothingToWaitFor(t *testing.T) {
	off := emptyOptions()
	off.EmptyWait = 0
	for _, tt := range []struct {
		name string
		o    Options
		do   func(b *RoundRobin)
		want string
	}{
		{"off", off, func(b *RoundRobin) { update(b) }, "no endpoints"},
		{"negative", Options{MaxQueue: 1, EmptyWait: -1}, func(b *RoundRobin) { update(b) }, "no endpoints"},
		{"never had any", emptyOptions(), func(b *RoundRobin) {
			b.OnUpdate([]Endpoints{{Service: "web", Removed: true}})
			b.Configure("web", emptyOptions())
			update(b)
		}, "no endpoints"},
		{"removed", emptyOptions(), func(b *RoundRobin) {
			update(b)
			b.OnUpdate([]Endpoints{{Service: "web", Removed: true}})
		}, ErrMissingServiceEntry.Error()},
		{"all ejected", emptyOptions(), func(b *RoundRobin) { fails(t, b, "A", Refused) }, "A"},
		{"over max_connections", Options{MaxConnections: 1, MaxQueue: 1, QueueTimeout: time.Hour}, func(b *RoundRobin) {
			_, _ = b.NextEndpoint("web", client, Tried{})
			update(b)
		}, "no endpoints"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(tt.o, named(1)...)
				if tt.do(b); next(b) != tt.want {
					t.Errorf("got %q, want %q", next(b), tt.want)
				}
			})
		})
	}
}

// Waiting clients learn of changes to their service.
func TestEmptyWaitEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(b *RoundRobin)
		want string
	}{
		{"service removed", func(b *RoundRobin) { b.OnUpdate([]Endpoints{{Service: "web", Removed: true}}) },
			ErrMissingServiceEntry.Error()},
		{"turned off", func(b *RoundRobin) { b.Configure("web", Options{MaxQueue: 10, QueueTimeout: time.Hour}) },
			"no endpoints"},
		{"shorter", func(b *RoundRobin) {
			time.Sleep(2 * time.Second)
			b.Configure("web", Options{MaxQueue: 10, EmptyWait: time.Second})
		}, "no endpoints"},
		{"longer", func(b *RoundRobin) {
			b.Configure("web", Options{MaxQueue: 10, EmptyWait: time.Hour})
			time.Sleep(5 * time.Second)
			update(b, endpoint("X", 1))
		}, "X"},
		{"the same endpoint again", func(b *RoundRobin) { update(b, named(1)...) }, "A"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := balanced(emptyOptions(), named(1)...)
				update(b)
				var tried Tried
				tried.Add("A")
				var got answers
				await(t, b, "client", client, tried, &got)
				tt.do(b)
				synctest.Wait()
				got.want(t, "client: "+tt.want)
			})
		})
	}
}

// The queue is limited even if the service has no other use for a queue. Endpoints with a limit serve one client after
// the other.
func TestEmptyServiceHasABoundedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{MaxQueue: 2, EmptyWait: 3 * time.Second, MaxPerEndpoint: 1}, named(1)...)
		update(b)
		var got answers
		await(t, b, "one", from(1), Tried{}, &got)
		await(t, b, "two", from(2), Tried{}, &got)
		if _, err := b.Wait("web", from(3), Tried{}, func(*Member, error) {}); !errors.Is(err, ErrMissingEndpoints) {
			t.Errorf("a client that finds the queue full got %v, want ErrMissingEndpoints", err)
		}
		update(b, endpoint("X", 1))
		got.want(t, "one: X")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		got.want(t, "one: X", "two: waited 3s: connection limit reached")
	})
}

// If an endpoint comes between a pick that returned ErrFull and the call of Wait, the client gets the endpoint. The
// client gets the endpoint even if clients cannot wait any more.
func TestEndpointComesBeforeTheWait(t *testing.T) {
	b := balanced(Options{MaxQueue: 1, EmptyWait: time.Hour}, named(1)...)
	update(b)
	if id := next(b); id != ErrFull.Error() {
		t.Fatal(id)
	}
	update(b, named(1)...)
	got := ""
	w, err := b.Wait("web", client, Tried{}, func(m *Member, err error) { got = fmt.Sprint(m.ID, " ", err) })
	if err != nil || got != "A <nil>" {
		t.Fatalf("got %q, %v", got, err)
	}
	if w.Cancel() {
		t.Error("the waiter was still in the queue")
	}
}

// A new process continues an empty wait with the time that is left.
func TestEmptiedIsHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := balanced(emptyOptions(), named(1)...)
		update(old)
		time.Sleep(2 * time.Second)
		emptied := old.Emptied()
		if len(emptied) != 1 || emptied["web"] != 2*time.Second {
			t.Fatalf("got %v, want one service, for 2 s", emptied)
		}
		b := balanced(emptyOptions())
		b.SetEmptied(map[string]time.Duration{"web": emptied["web"], "other": emptied["web"]})
		var got answers
		await(t, b, "client", client, Tried{}, &got)
		time.Sleep(time.Second - time.Millisecond)
		got.want(t)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		got.want(t, "client: no endpoints")
		full := balanced(emptyOptions(), named(1)...)
		full.SetEmptied(emptied)
		if len(full.Emptied()) != 0 {
			t.Error("Emptied reports a service with endpoints")
		}
	})
}
