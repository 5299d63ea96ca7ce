package lb

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// clients makes n clients come evenly within d. Each client dials up to three endpoints, which all refuse. clients
// returns the number of dials, and the number of clients that got ErrRetryBudget.
func clients(t *testing.T, b *RoundRobin, n int, d time.Duration) (dials, held int) {
	t.Helper()
	for range n {
		var tried Tried
		for tried.Len() < 3 {
			m, err := b.NextEndpoint("web", client, tried)
			if errors.Is(err, ErrRetryBudget) {
				held++
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			dials++
			m.Failed(Refused)
			m.Done()
			tried.Add(m.ID)
		}
		time.Sleep(d / time.Duration(n))
	}
	return dials, held
}

// A dead service gets one dial for each client, plus a fifth.
func TestRetryBudgetSparesADeadService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{}, named(1, 1, 1, 1)...)
		clients(t, b, 20000, 20*time.Second)
		dials, held := clients(t, b, 20000, 20*time.Second)
		// The floor of 10 a second allows 200.
		if dials < 23500 || dials > 24500 {
			t.Errorf("20000 clients dialled %d times, want a fifth more than they are", dials)
		}
		if held < 10000 {
			t.Errorf("%d of 20000 clients got ErrRetryBudget, want most", held)
		}
	})
}

// The few clients of a quiet service may try all endpoints.
func TestRetryBudgetHasAFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{}, named(1, 1, 1)...)
		if dials, held := clients(t, b, 100, 25*time.Second); dials != 300 || held != 0 {
			t.Errorf("100 clients in 25 s: %d dials, %d held back, want 300 and 0", dials, held)
		}
		// Ten seconds of the floor are allowed at once, and no more.
		if dials, _ := clients(t, b, 1000, time.Millisecond); dials < 1000+250 || dials > 1000+320 {
			t.Errorf("1000 clients at once dialled %d times, want 1000, the 200 these earn, and up to 120 of the "+
				"floor", dials)
		}
	})
}

// First picks are never limited, and neither are retries while an endpoint answers.
func TestRetryBudgetHoldsNobodyBackWhereSomeAnswer(t *testing.T) {
	b := balanced(Options{}, named(1, 1, 1, 1, 1)...)
	for range 5000 {
		var tried Tried
		for {
			m, err := b.NextEndpoint("web", client, tried)
			if err != nil {
				t.Fatalf("after %d tried: %v", tried.Len(), err)
			}
			if m.ID == "E" {
				m.Connected()
				m.Done()
				break
			}
			m.Failed(Refused)
			m.Done()
			tried.Add(m.ID)
		}
	}
}

// Tokens from old picks expire: after a busy day, a service that dies at night gets few retries.
func TestRetryBudgetForgets(t *testing.T) {
	b := &budget{}
	firsts, now := int64(0), instant(1)
	for range 100 {
		firsts += rand.Int64N(20000)
		now = now.add(time.Second)
		b.spend(firsts, now)
	}
	now = now.add(time.Hour)
	n := 0
	for b.spend(firsts, now) {
		n++
	}
	if n != 100 {
		t.Errorf("%d retries after an hour without clients, want the floor of ten seconds, 100", n)
	}
}

// Concurrent calls of spend may arrive out of order. Calls out of order earn no tokens twice.
func TestRetryBudgetOutOfOrder(t *testing.T) {
	b := &budget{}
	early, late := instant(0).add(time.Hour), instant(0).add(2*time.Hour)
	for b.spend(1000, late) {
	}
	for range 100 {
		for _, call := range []struct {
			firsts int64
			now    instant
		}{{0, early}, {1000, late}} {
			if b.spend(call.firsts, call.now) {
				t.Fatalf("got a retry at %v with %d first picks, want none", time.Duration(call.now), call.firsts)
			}
		}
	}
}
