package wheel

import (
	"math/rand/v2"
	"testing"
	"time"
)

// firing is an Owner that records when its timer fired.
type firing struct {
	Timer
	w     *Wheel
	due   time.Duration
	fired time.Duration // negative until the timer has fired
	again func(*firing)
}

func (f *firing) Timeout() {
	f.fired = time.Duration(f.w.now) * Tick
	if f.again != nil {
		f.again(f)
	}
}

func randN(rnd *rand.Rand, n time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(n))) }

func newFiring(w *Wheel, due time.Duration) *firing {
	f := &firing{w: w, due: due, fired: -1}
	f.Owner = f
	w.Set(&f.Timer, due)
	return f
}

const second = time.Second

// In small steps of time, each timer fires once: not before its time, and at most one tick after it. Next never returns
// a time beyond that of a timer.
func TestWheelFiresInTime(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := &Wheel{}
		w.Init()
		now := randN(rnd, 1000*second)
		w.Advance(now)
		var all []*firing
		for range 300 {
			span := []time.Duration{second / 100, second, 10 * second, 3000 * second}[rnd.IntN(4)]
			all = append(all, newFiring(w, now+randN(rnd, span)))
		}
		for w.count > 0 {
			sleep := w.Next(now)
			if sleep < 0 {
				t.Fatalf("seed %d: Next returned no time with %d timers set", seed, w.count)
			}
			now += sleep + 1
			before := w.count
			w.Advance(now)
			for _, f := range all {
				if f.fired < 0 && f.due+Tick < now {
					t.Fatalf("seed %d: timer due at %v has not fired at %v (%d of %d left)",
						seed, f.due, now, w.count, before)
				}
			}
		}
		for _, f := range all {
			if f.fired < f.due || f.fired > f.due+2*Tick {
				t.Errorf("seed %d: timer due at %v fired at %v", seed, f.due, f.fired)
			}
		}
		if w.Next(now) != -1 {
			t.Errorf("seed %d: Next returned a time for an empty wheel", seed)
		}
	}
}

func TestWheelClearAndMove(t *testing.T) {
	w := &Wheel{}
	w.Init()
	cleared, moved, stays := newFiring(w, second), newFiring(w, second), newFiring(w, second)
	far := newFiring(w, 5000*second)
	w.Clear(&cleared.Timer)
	w.Clear(&cleared.Timer)
	w.Set(&moved.Timer, 3*second)
	w.Advance(2 * second)
	if cleared.fired >= 0 || moved.fired >= 0 || stays.fired < 0 {
		t.Errorf("after 2 s: the cleared timer fired at %v, the moved one at %v, the other at %v",
			cleared.fired, moved.fired, stays.fired)
	}
	w.Advance(4 * second)
	if moved.fired < 3*second {
		t.Errorf("the timer moved to 3 s fired at %v", moved.fired)
	}
	w.Advance(6000 * second)
	if far.fired < 5000*second {
		t.Errorf("the far timer fired at %v", far.fired)
	}
}

// A timer that sets itself again while it fires does not fire twice in one tick.
func TestWheelSetWhileFiring(t *testing.T) {
	w := &Wheel{}
	w.Init()
	n := 0
	f := newFiring(w, 0)
	f.again = func(f *firing) {
		if n++; n < 10 {
			w.Set(&f.Timer, 0)
		}
	}
	for i := range 20 {
		i++
		w.Advance(time.Duration(i) * Tick)
		if want := min(i, 10); n != want {
			t.Fatalf("after %d ticks the timer has fired %d times, want %d", i, n, want)
		}
	}
}

func TestWheelSleepsLong(t *testing.T) {
	w := &Wheel{}
	w.Init()
	newFiring(w, 3600*second)
	wakes := 0
	for now := time.Duration(0); w.count > 0; wakes++ {
		now += w.Next(now)
		w.Advance(now)
	}
	if wakes > 20 {
		t.Errorf("an hour took %d wakes, want a few", wakes)
	}
}

// A wheel without timers need not step through time that has passed.
func TestWheelSkips(t *testing.T) {
	w := &Wheel{}
	w.Init()
	w.Skip(1e6 * second)
	f := newFiring(w, 1e6*second+second)
	if sleep := w.Next(1e6 * second); sleep > 2*second {
		t.Errorf("Next returned %v, want about a second", sleep)
	}
	w.Skip(2e6 * second) // does nothing, because a timer is set
	w.Advance(1e6*second + 2*second)
	if f.fired < 0 {
		t.Error("the timer did not fire")
	}
}

func BenchmarkWheel(b *testing.B) {
	w := &Wheel{}
	w.Init()
	f := newFiring(w, second)
	b.ReportAllocs()
	for i := time.Duration(0); b.Loop(); i++ {
		w.Set(&f.Timer, i%1000*second)
	}
}
