// Package wheel keeps the timers of an event loop in a hierarchical timing wheel ("Hashed and hierarchical timing
// wheels", Varghese and Lauck, 1987). Setting, clearing or firing a timer takes a few instructions and allocates
// nothing. The price is precision: a timer fires up to one tick late, or up to 2 s late if it is set minutes ahead.
//
// All times are durations since the caller's clock began. A Wheel and its timers belong to one goroutine.
package wheel

import (
	"math/bits"
	"time"
)

// A Wheel holds the timers that are set. Call Init before any other method.
//
// Timers that the fine ring can hold wait there, one slot for each tick. Later timers wait in the coarse ring, one slot
// for every coarseTicks ticks, and move to the fine ring when their slot is reached. Timers beyond both rings wait in
// the last slot of the coarse ring and are inserted again when that slot is reached.
type Wheel struct {
	now   int64 // current tick; all timers due at this tick or before have fired
	count int   // number of timers that are set

	// Each slot is a circular list of timers. The bitmaps mark the slots that are not empty.
	fine       [fineSlots]Timer
	coarse     [coarseSlots]Timer
	fineUsed   [fineSlots / 64]uint64
	coarseUsed [coarseSlots / 64]uint64
}

// Tick is the precision of a Wheel.
const Tick = 8 * time.Millisecond

const (
	fineSlots   = 256
	coarseTicks = 128
	coarseSlots = 512
)

// A Timer calls its Owner's Timeout when its time has come. The zero Timer is not set.
type Timer struct {
	Owner Owner

	prev, next *Timer // neighbours in the slot's list; nil if the timer is not set
	at         int64  // tick at which the timer fires
	slot       int16  // slot of the fine ring if not negative; otherwise -1 minus the slot of the coarse ring
}

// An Owner is told when its Timer fires.
type Owner interface {
	// Timeout is called when the timer fires. The timer is no longer set at that moment and may be set again.
	Timeout()
}

// Init makes the wheel empty and sets its time to 0.
func (w *Wheel) Init() {
	for i := range w.fine {
		w.fine[i].prev, w.fine[i].next = &w.fine[i], &w.fine[i]
	}
	for i := range w.coarse {
		w.coarse[i].prev, w.coarse[i].next = &w.coarse[i], &w.coarse[i]
	}
}

// Set makes t fire at the given time, or at the next tick if that time has passed. If t was set already, Set moves it.
func (w *Wheel) Set(t *Timer, at time.Duration) {
	w.Clear(t)
	t.at = max(int64((at+Tick-1)/Tick), w.now+1)
	w.count++
	w.insert(t)
}

func (w *Wheel) insert(t *Timer) {
	var head *Timer
	if t.at-w.now < fineSlots {
		i := t.at % fineSlots
		t.slot = int16(i)
		head = &w.fine[i]
		w.fineUsed[i/64] |= 1 << (i % 64)
	} else {
		i := min(t.at/coarseTicks, w.now/coarseTicks+coarseSlots-1) % coarseSlots
		t.slot = int16(-1 - i)
		head = &w.coarse[i]
		w.coarseUsed[i/64] |= 1 << (i % 64)
	}
	t.prev, t.next = head.prev, head
	t.prev.next, head.prev = t, t
}

// Clear cancels t. Clear does nothing if t is not set.
func (w *Wheel) Clear(t *Timer) {
	if t.next == nil {
		return
	}
	w.unlink(t)
	w.count--
}

func (w *Wheel) unlink(t *Timer) {
	t.prev.next, t.next.prev = t.next, t.prev
	if t.prev == t.next { // both neighbours are the head, so the slot is now empty
		if i := int64(t.slot); i >= 0 {
			w.fineUsed[i/64] &^= 1 << (i % 64)
		} else {
			i = -1 - i
			w.coarseUsed[i/64] &^= 1 << (i % 64)
		}
	}
	t.prev, t.next = nil, nil
}

// Skip moves an empty wheel directly to the given time. Skip does nothing if a timer is set.
func (w *Wheel) Skip(now time.Duration) {
	if w.count == 0 {
		w.now = max(w.now, int64(now/Tick))
	}
}

// Advance fires all timers that are due at the given time. Timeout methods may set and clear any timer.
func (w *Wheel) Advance(now time.Duration) {
	for to := int64(now / Tick); w.now < to; {
		if w.count == 0 {
			w.now = to
			return
		}
		w.now++
		if w.now%coarseTicks == 0 {
			head := &w.coarse[w.now/coarseTicks%coarseSlots]
			for n := head.next; n != head; n = head.next {
				w.unlink(n)
				w.insert(n) // the timer moves to another slot, because this slot is a whole round away
			}
		}
		head := &w.fine[w.now%fineSlots]
		for t := head.next; t != head; t = head.next {
			w.Clear(t)
			t.Owner.Timeout()
		}
	}
}

// Next returns the time from now until Advance should be called next. Next returns a negative value if no timer is set.
func (w *Wheel) Next(now time.Duration) time.Duration {
	if w.count == 0 {
		return -1
	}
	at := int64(-1)
	if d := distance(w.fineUsed[:], w.now+1, fineSlots); d >= 0 {
		at = w.now + 1 + d
	}
	if d := distance(w.coarseUsed[:], w.now/coarseTicks+1, coarseSlots); d >= 0 {
		if c := (w.now/coarseTicks + 1 + d) * coarseTicks; at < 0 || c < at {
			at = c
		}
	}
	return max(time.Duration(at)*Tick-now, 0)
}

// distance returns the number of slots from slot from to the first non-empty slot, going round the ring. distance
// returns -1 if all slots are empty.
func distance(used []uint64, from, slots int64) int64 {
	start := from % slots
	for i := int64(0); i <= int64(len(used)); i++ {
		word := (start/64 + i) % int64(len(used))
		bitmap := used[word]
		if i == 0 {
			bitmap &= ^uint64(0) << (start % 64)
		}
		if bitmap != 0 {
			return (word*64 + int64(bits.TrailingZeros64(bitmap)) - start + slots) % slots
		}
	}
	return -1
}
