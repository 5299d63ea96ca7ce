package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// taken returns how many descriptors of the budget are taken.
func (b *budget) taken() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.total - b.common.Load()
	for _, s := range append(slices.Clone(b.shares), &b.listeners) {
		taken, floor := s.load()
		n -= max(floor-taken, 0)
	}
	return n
}

// The table has the figures of docs/operations.md. The limits exclude the descriptors of the admin API.
func TestBudgetArithmetic(t *testing.T) {
	for _, tt := range []struct {
		limit                        int64
		loops, services              int // each service has one listener
		total, equal, floor, ceiling int64
		pipes                        int // of each loop
		sockets                      int // of each listener, if all are UDP listeners
	}{
		{19936, 2, 1, 19608, 19574, 256, 19574, 1, 2},
		{19936, 2, 10, 19608, 1955, 256, 17252, 1, 2},
		{19936, 2, 1000, 19608, 17, 8, 9584, 1, 2},
		{19936, 0, 3, 19552, 6504, 256, 19002, 64, 0},
		{240, 2, 2, 170, 80, 40, 121, 1, 2},
		{960, 2, 10, 701, 66, 33, 363, 1, 2},
		{524224, 2, 100, 523896, 5236, 256, 498320, 1, 2},
		{524224, 64, 1, 523648, 523614, 256, 523614, 1, 64},
		{524224, 64, 40, 523648, 13088, 256, 513552, 1, 25},
		{524224, 64, 1000, 523648, 521, 256, 265872, 1, 2},
		{960, 64, 40, 583, 12, 6, 251, 0, 2},
		{960, 128, 100, 457, 2, 2, 45, 0, 2},
		{64, 2, 2, 39, 16, 8, 25, 1, 2},
		{16, 2, 2, 7, 1, 1, 2, 0, 2},
		{16, 8, 2, 0, 0, 0, 0, 0, 2},
	} {
		b := newBudget(tt.limit, tt.loops)
		var shares []*share
		for range tt.services {
			_ = b.openListener(listenerDescriptors) // fails at the smallest limit, and then nothing is left
			shares = append(shares, b.newShare())
		}
		b.divide(shares)
		_, floor := shares[0].load()
		sockets := b.udpSockets(tt.services, tt.loops)
		got := []int64{b.total, b.equal.Load(), floor, b.ceiling.Load(), int64(b.pipes), int64(sockets)}
		want := []int64{tt.total, tt.equal, tt.floor, tt.ceiling, int64(tt.pipes), int64(tt.sockets)}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d, %d loops, %d services: total, equal, floor, ceiling, pipes, sockets:\n got %v\nwant %v",
				tt.limit, tt.loops, tt.services, got, want)
		}
		pools := int64(max(tt.loops, 1))
		kept := min(256, tt.limit/4) + 2*int64(tt.loops) + 2*pools*int64(b.pipes)
		if sum := b.total + b.advances.Load() + kept; sum != max(tt.limit, kept+b.advances.Load()) {
			t.Errorf("limit %d, %d loops: the parts come to %d", tt.limit, tt.loops, sum)
		}
	}
}

// dividedBudget returns a budget with room descriptors for services, and n shares.
func dividedBudget(room int64, n int) (*budget, []*share) {
	b := &budget{total: room}
	b.listeners.budget = b
	for b.keepListenersLocked(); b.total-b.listeners.goal < room; b.keepListenersLocked() {
		b.total++
	}
	b.common.Store(b.total)
	var shares []*share
	for range n {
		shares = append(shares, b.newShare())
	}
	b.divide(shares)
	return b, shares
}

// takeAll takes n descriptors at a time for s until s gets no more. takeAll returns how many descriptors s got.
func takeAll(s *share, n int64) (all int64) {
	for s.take(n) {
		all += n
	}
	return all
}

func TestShareHasItsFloorWhateverOthersTake(t *testing.T) {
	b, shares := dividedBudget(31, 3) // each floor is 5
	first := takeAll(shares[0], 1)
	if ceiling := b.ceiling.Load(); first != ceiling || ceiling != 21 {
		t.Errorf("the first share got %d, want its ceiling %d, which should be 21", first, ceiling)
	}
	if !shares[0].atCeiling(1) || shares[1].atCeiling(1) {
		t.Error("atCeiling is false for the first share, or true for another share")
	}
	for _, s := range shares[1:] {
		if got := takeAll(s, 1); got != 5 {
			t.Errorf("another share got %d, want its floor of 5", got)
		}
	}
	if n := b.taken(); n != 31 {
		t.Errorf("%d are taken, want 31", n)
	}
	shares[0].release(1)
	if !shares[1].take(1) || shares[1].take(1) {
		t.Error("the released descriptor did not go to exactly one other take")
	}
}

// A reload adds services while others have all descriptors. The earlier services keep their descriptors. Descriptors
// that they release go to the new services.
func TestFloorThatIsOwedIsPaidFirst(t *testing.T) {
	b, shares := dividedBudget(24, 1)
	old, added := shares[0], b.newShare()
	takeAll(old, 1)
	b.divide([]*share{old, added})
	if taken, floor := added.load(); taken != 0 || floor != 0 || added.take(1) {
		t.Fatalf("the new share has %d and a floor of %d, want none: no descriptors are left", taken, floor)
	}
	old.release(1)
	if old.take(1) {
		t.Error("the old share took back what is owed to the new share")
	}
	if !added.take(1) {
		t.Error("the new share did not get the released descriptor")
	}
	for range 5 {
		old.release(1)
	}
	if _, floor := added.load(); floor != 6 {
		t.Errorf("a floor of %d is set aside, want 6", floor)
	}
	if b.waiting.Load() {
		t.Error("floors are still owed")
	}
	old.release(1)
	if !old.take(1) {
		t.Error("the old share did not get a descriptor that is owed to no share")
	}
}

// A removed service leaves its floor to the others. The descriptors of a removed service follow when the service
// releases them.
func TestShareOfAServiceThatHasGone(t *testing.T) {
	b, shares := dividedBudget(24, 2)
	gone, rest := shares[0], shares[1]
	for range 4 {
		gone.take(1)
	}
	b.divide(shares[1:])
	if got := takeAll(rest, 1); got != 20 {
		t.Errorf("the other share got %d, want 20", got)
	}
	gone.release(4)
	if got := takeAll(rest, 1); got != 4 {
		t.Errorf("the other share got %d more, want 4", got)
	}
}

// Waiting shares have their turns, one after the other. A share that releases and takes all the time does not overtake
// them.
func TestSharesThatWaitHaveTheirTurns(t *testing.T) {
	b, shares := dividedBudget(12, 3) // each floor is 2
	busy := shares[0]
	takeAll(shares[1], 1)
	takeAll(busy, 1)
	takeAll(shares[2], 1)
	var turns []int
	for range 3 {
		for i, s := range shares {
			b.wait(&waiter{share: s, n: 1, granted: func() { turns = append(turns, i) }})
		}
	}
	if len(turns) > 0 {
		t.Fatalf("%v had turns before a descriptor was free", turns)
	}
	for range 6 {
		shares[1].release(1)
		if busy.take(1) {
			t.Fatal("a share overtook the waiting shares")
		}
	}
	// In the end the second share is below its floor, and then it does not wait for others.
	want := []int{0, 1, 2, 0, 1, 2}
	if !slices.Equal(turns, want) {
		t.Errorf("the turns were %v, want %v", turns, want)
	}
}

func TestWaiterCanGiveUp(t *testing.T) {
	b, shares := dividedBudget(8, 2)
	takeAll(shares[0], 1)
	takeAll(shares[1], 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	never := func() bool { return false }
	if err := shares[1].acquire(ctx, 2, never); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if b.waiting.Load() {
		t.Error("waiting is true although no share waits")
	}
	told := make(chan struct{})
	w := &waiter{share: shares[1], n: 2, granted: func() { close(told) }}
	b.wait(w)
	shares[0].release(2)
	<-told
	if b.withdraw(w) {
		t.Error("withdraw returned true for a waiter that had its turn")
	}
	if err := shares[1].acquire(t.Context(), 2, func() bool { return true }); err != nil {
		t.Errorf("got %v, want nil: reclaim has taken descriptors", err)
	}
}

// A reload can open listeners, however many descriptors the services have taken.
func TestListenersHaveAFloor(t *testing.T) {
	b, shares := dividedBudget(3200, 2)
	takeAll(shares[0], 1)
	for i := range spareListeners {
		if err := b.openListener(listenerDescriptors); err != nil {
			t.Fatalf("listener %d: %v", i, err)
		}
	}
	err := b.openListener(listenerDescriptors)
	if err == nil || !strings.Contains(err.Error(), "ulimit -n") {
		t.Errorf("got %v, want an error that says what to raise", err)
	}
	shares[0].release(2 * listenerDescriptors)
	if err := b.openListener(listenerDescriptors); err != nil {
		t.Error(err)
	}
	b.closeListener((spareListeners + 1) * listenerDescriptors)
	if taken, _ := b.listeners.load(); taken != 0 {
		t.Errorf("%d are taken, want none", taken)
	}
}

// A budgetModel checks a budget by plain additions.
type budgetModel struct {
	*testing.T
	*budget
	rnd     *rand.Rand
	shares  []*share // including those of removed services
	waiters map[*waiter]bool
}

// check checks the sums, and that no share waits without need.
func (m *budgetModel) check(step string) {
	m.Helper()
	sum := m.common.Load()
	taken := int64(0)
	for _, s := range append(slices.Clone(m.shares), &m.listeners) {
		n, floor := s.load()
		sum += max(n, floor)
		taken += n
		if n < 0 || floor > s.goal {
			m.Fatalf("%s: a share has %d, and a floor of %d, which should be %d", step, n, floor, s.goal)
		}
		if len(s.waiters) > 0 && n+s.waiters[0].n <= floor {
			m.Fatalf("%s: a waiter needs %d, its share has %d and a floor of %d", step, s.waiters[0].n, n, floor)
		}
	}
	if sum != m.total || taken > m.total || m.common.Load() < 0 {
		m.Fatalf("%s: %d are taken, and the sum is %d, want %d", step, taken, sum, m.total)
	}
	if len(m.owed) > 0 && m.common.Load() > 0 {
		m.Fatalf("%s: floors are owed while common has %d", step, m.common.Load())
	}
	if waiting := len(m.owed)+len(m.queue) > 0; waiting != m.waiting.Load() {
		m.Fatalf("%s: waiting is %v", step, !waiting)
	}
}

func (m *budgetModel) step() string {
	s := m.shares[m.rnd.IntN(len(m.shares))]
	n := 1 + m.rnd.Int64N(2)
	taken, floor := s.load()
	switch m.rnd.IntN(12) {
	case 0, 1, 2, 3:
		short := max(taken+n, floor) - max(taken, floor)
		want := short == 0 || !m.waiting.Load() && short <= m.common.Load()
		if got := s.take(n); got != want {
			m.Fatalf("take %d with %d taken, a floor of %d and %d in common: got %v, want %v",
				n, taken, floor, m.common.Load(), got, want)
		}
		return "take"
	case 4, 5, 6, 7:
		if taken >= n {
			s.release(n)
		}
		return "release"
	case 8:
		if o := m.shares[m.rnd.IntN(len(m.shares))]; taken > floor {
			if _, room := o.load(); !s.pass(o, 1) && room < m.total {
				m.Fatalf("a share with %d and a floor of %d could not pass a descriptor", taken, floor)
			}
		}
		return "pass"
	case 9:
		var w *waiter
		w = &waiter{share: s, n: n, granted: func() {
			if !m.waiters[w] {
				m.Fatal("a waiter had a turn that does not wait")
			}
			delete(m.waiters, w)
		}}
		m.waiters[w] = true
		m.wait(w)
		return "wait"
	case 10:
		for w := range m.waiters {
			if !m.withdraw(w) {
				m.Fatal("withdraw returned false for a waiter that still waits")
			}
			delete(m.waiters, w)
			break
		}
		return "cancel"
	default:
		m.divide(m.some())
		return "divide"
	}
}

// some returns the services that exist from now on.
func (m *budgetModel) some() (some []*share) {
	for len(m.shares) < 12 && m.rnd.IntN(2) == 0 {
		m.shares = append(m.shares, m.newShare())
	}
	for _, s := range m.shares {
		if m.rnd.IntN(3) > 0 {
			some = append(some, s)
		}
	}
	return some
}

// A budget keeps its promises for random calls in any order. Shares never take more than total. A share below its floor
// is not refused. No share waits while descriptors are free. Everything that was taken can be released.
func TestBudgetRandom(t *testing.T) {
	for range 200 {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 0))
		b, shares := dividedBudget(1+rnd.Int64N(80), 1+rnd.IntN(5))
		m := &budgetModel{T: t, budget: b, rnd: rnd, shares: shares, waiters: map[*waiter]bool{}}
		for range 500 {
			m.check(m.step())
			if t.Failed() {
				t.Fatal("seed", seed)
			}
		}
		for w := range m.waiters {
			m.withdraw(w)
		}
		for _, s := range m.shares {
			n, _ := s.load()
			s.release(n)
		}
		m.check("end")
		if n := b.taken(); n != 0 {
			t.Fatalf("%d are taken at the end; seed %d", n, seed)
		}
	}
}

// A budget keeps its promises under concurrent calls. The test counts a descriptor as open from after its take until
// before its release.
func TestBudgetConcurrently(t *testing.T) {
	b, shares := dividedBudget(64, 6)
	var open atomic.Int64
	var running sync.WaitGroup
	use := func(rnd *rand.Rand, s *share, n int64) {
		if all := open.Add(n); all > b.total {
			t.Errorf("%d are open, want %d at most", all, b.total)
		}
		if rnd.IntN(4) == 0 {
			time.Sleep(time.Duration(rnd.IntN(100)) * time.Microsecond)
		}
		open.Add(-n)
		s.release(n)
	}
	for i, s := range shares {
		for j := range 3 {
			running.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), uint64(j)))
				for range 2000 {
					switch {
					case j > 0: // a few at a time, mostly above the floor
						n := rnd.Int64N(12)
						got := int64(0)
						for got < n && s.take(1) {
							got++
						}
						use(rnd, s, got)
					case s.acquire(t.Context(), 2, func() bool { return false }) == nil:
						use(rnd, s, 2)
					}
				}
			})
		}
	}
	running.Go(func() {
		rnd := rand.New(rand.NewPCG(99, 99))
		for range 500 {
			b.divide(slices.Clone(shares[rnd.IntN(len(shares)):]))
			time.Sleep(50 * time.Microsecond)
		}
		b.divide(shares)
	})
	running.Wait()
	if n := b.taken(); n != 0 || b.waiting.Load() {
		t.Errorf("%d are taken at the end; shares wait: %v", n, b.waiting.Load())
	}
	for _, s := range shares {
		if _, floor := s.load(); floor != 5 {
			t.Errorf("a floor is %d at the end, want 5", floor)
		}
	}
}

// A share below its floor never waits, however many shares compete for the rest.
func TestShareBelowItsFloorNeverWaits(t *testing.T) {
	b, shares := dividedBudget(40, 4)
	_, floor := shares[0].load()
	var stop atomic.Bool
	var running sync.WaitGroup
	for _, s := range shares[1:] {
		for range 2 {
			running.Go(func() {
				for !stop.Load() {
					s.release(takeAll(s, 1))
					if s.acquire(t.Context(), 2, func() bool { return false }) == nil {
						s.release(2)
					}
				}
			})
		}
	}
	for range 20000 {
		for range floor {
			if !shares[0].take(1) {
				t.Fatal("a share below its floor was refused")
			}
		}
		shares[0].release(floor)
	}
	stop.Store(true)
	running.Wait()
	if n := b.taken(); n != 0 {
		t.Errorf("%d are taken at the end", n)
	}
}
