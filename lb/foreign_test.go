package lb

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// keyOf returns the UseKey of a member of "web".
func keyOf(t *testing.T, b *RoundRobin, id string) UseKey {
	t.Helper()
	for _, e := range b.Snapshot()[0].Endpoints {
		if e.ID == id {
			return UseKey{id, e.Address()}
		}
	}
	t.Fatalf("no endpoint %s", id)
	return UseKey{}
}

func TestForeignUsesCountForLimits(t *testing.T) {
	for _, p := range allPolicies() {
		for _, n := range []int{4, manyMembers + 1} {
			t.Run(fmt.Sprintf("%v/%d", p, n), func(t *testing.T) {
				weights := make([]int, n)
				for i := range weights {
					weights[i] = 1
				}
				b := balanced(Options{Policy: p, MaxPerEndpoint: 2}, named(weights...)...)
				a := keyOf(t, b, "A")
				b.SetForeign("web", map[UseKey]int64{a: 2, {"gone", "127.0.0.1:1"}: 3})
				members := fill(t, b)
				if len(members) != 2*n-2 {
					t.Errorf("full with %d, want %d", len(members), 2*n-2)
				}
				if open := b.Snapshot()[0].Open; open != int64(2*n+3) {
					t.Errorf("%d uses are open, want %d", open, 2*n+3)
				}
				b.SetForeign("web", map[UseKey]int64{a: 1})
				if m, err := b.NextEndpoint("web", client, Tried{}); err != nil || m.ID != "A" {
					t.Errorf("with room at A again: got %v, %v", m, err)
				}
				for _, m := range members {
					m.Done()
				}
			})
		}
	}
}

func TestForeignUsesCountForTheService(t *testing.T) {
	b := balanced(Options{MaxConnections: 7}, named(1, 1)...)
	a := keyOf(t, b, "A")
	b.SetForeign("web", map[UseKey]int64{a: 3, {"gone", "127.0.0.1:1"}: 2})
	if members := fill(t, b); len(members) != 2 {
		t.Errorf("full with %d, want 2", len(members))
	}
	b.SetForeign("web", nil)
	if members := fill(t, b); len(members) != 5 {
		t.Errorf("with room for %d more, want 5", len(members))
	}
	b.SetForeign("none", map[UseKey]int64{a: 3})
	if _, err := b.NextEndpoint("none", client, Tried{}); !errors.Is(err, ErrMissingServiceEntry) {
		t.Errorf("of a service that is not there: got %v", err)
	}
}

// An endpoint that leaves and comes back gets its foreign uses back. An endpoint that has left keeps no foreign uses,
// because the balancer would otherwise never forget it.
func TestForeignUsesOfAnEndpointThatComesBack(t *testing.T) {
	b := balanced(Options{MaxPerEndpoint: 2}, named(1, 1)...)
	a := keyOf(t, b, "A")
	both := named(1, 1)
	b.SetForeign("web", map[UseKey]int64{a: 2})
	for range 3 {
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: both[1:]}})
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: both}})
	}
	v, _ := b.services.Load("web")
	if former := len(v.(*group).former); former > 1 {
		t.Errorf("%d former members are kept", former)
	}
	if members := fill(t, b); len(members) != 2 || members[0].ID != "B" || members[1].ID != "B" {
		t.Errorf("got %d members, want B twice", len(members))
	}
	b.SetForeign("web", nil)
	if open := b.Snapshot()[0].Open; open != 2 {
		t.Errorf("%d uses are open, want 2", open)
	}
	if members := fill(t, b); len(members) != 2 {
		t.Errorf("room for %d more, want 2", len(members))
	}
}

// Foreign clients in the queue take slots of the queue. When foreign uses end, clients that wait in this process are
// served.
func TestForeignUsesAndTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{MaxPerEndpoint: 1, MaxQueue: 2, QueueTimeout: time.Minute}, named(1)...)
		a := keyOf(t, b, "A")
		b.SetForeign("web", map[UseKey]int64{a: 1, {}: 1})
		served := 0
		ready := func(m *Member, err error) {
			if err != nil {
				t.Error(err)
			}
			served++
		}
		if _, err := b.Wait("web", client, Tried{}, ready); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Wait("web", from(9), Tried{}, ready); !errors.Is(err, ErrFull) {
			t.Errorf("a third in a queue of two: got %v", err)
		}
		b.SetForeign("web", map[UseKey]int64{{}: 1})
		if served != 1 {
			t.Errorf("%d clients were served after the foreign use had ended, want 1", served)
		}
	})
}

func TestUsesAreOwnOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{MaxPerEndpoint: 2, MaxQueue: 2, QueueTimeout: time.Minute}, named(1, 1)...)
		a, second := keyOf(t, b, "A"), keyOf(t, b, "B")
		ended := 0
		b.NotifyEnded(func() { ended++ })
		b.SetForeign("web", map[UseKey]int64{a: 1, {}: 1})
		members := fill(t, b)
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1, 1)[:1]}}) // B leaves
		w, err := b.Wait("web", client, Tried{}, func(*Member, error) {})
		if err != nil {
			t.Fatal(err)
		}
		got := b.Uses()["web"]
		if len(got) != 3 || got[a] != 1 || got[second] != 2 || got[UseKey{}] != 1 {
			t.Errorf("got %v, want one of A, two of B which has left, and one that waits", got)
		}
		if w.Cancel(); ended != 1 {
			t.Errorf("told of %d ends after one has left the queue", ended)
		}
		for _, m := range members {
			m.Done()
		}
		if got := b.Uses(); len(got) != 0 || ended != 4 {
			t.Errorf("got %v, and told of %d ends, want none and 4", got, ended)
		}
	})
}
