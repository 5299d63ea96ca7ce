// Package wheel keeps the timers of an event loop in a hierarchical timing wheel ("Hashed and hierarchical timing
// wheels", Varghese and Lauck, 1987). To set, clear or fire a timer takes a few instructions and allocates nothing. The
// price is precision: a timer fires up to one tick late, or up to 2 s late if it is set minutes ahead.
//
// All times are by the caller's clock: how long ago it began. A Wheel and its timers belong to one goroutine.
package wheel

import (
	"math/bits"
	"time"
)

// A Wheel holds the timers that are set. Call Init before anything else.
//
// Timers within reach of the fine ring wait there, one slot a tick. Later ones wait in the coarse ring, one slot every
// coarseTicks, and move to the fine ring when their slot comes up. Timers beyond both rings wait in the last slot of
// the coarse ring, from which they are inserted again.
type Wheel struct {
	now   int64 // every timer due at this tick or before has fired
	count int   // timers that are set

	// Each slot is a ring of timers. The bitmaps show which slots are not empty.
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

// A Timer calls its Owner once its time has come. The zero Timer is not set.
type Timer struct {
	Owner Owner

	prev, next *Timer // in its slot; nil if it is not set
	at         int64  // tick
	slot       int16  // in the fine ring if not negative, else -1-slot in the coarse ring
}

// An Owner has a Timer.
type Owner interface {
	// Timeout is called when the timer fires. The timer is not set any more then, and may be set again.
	Timeout()
}

// Init makes an empty wheel at time 0.
func (w *Wheel) Init() {
	for i := range w.fine {
		w.fine[i].prev, w.fine[i].next = &w.fine[i], &w.fine[i]
	}
	for i := range w.coarse {
		w.coarse[i].prev, w.coarse[i].next = &w.coarse[i], &w.coarse[i]
	}
}

// Set makes t fire at the given time, or at the next tick if that has passed. A timer that is set already moves.
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

// Clear makes t not fire. It does nothing if t is not set.
func (w *Wheel) Clear(t *Timer) {
	if t.next == nil {
		return
	}
	w.unlink(t)
	w.count--
}

func (w *Wheel) unlink(t *Timer) {
	t.prev.next, t.next.prev = t.next, t.prev
	if t.prev == t.next { // both are the head: the slot has become empty
		if i := int64(t.slot); i >= 0 {
			w.fineUsed[i/64] &^= 1 << (i % 64)
		} else {
			i = -1 - i
			w.coarseUsed[i/64] &^= 1 << (i % 64)
		}
	}
	t.prev, t.next = nil, nil
}

// Skip moves an empty wheel to the given time at once. It does nothing if a timer is set.
func (w *Wheel) Skip(now time.Duration) {
	if w.count == 0 {
		w.now = max(w.now, int64(now/Tick))
	}
}

// Advance fires all timers that are due at the given time. Owners may set and clear any timers meanwhile.
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
				w.insert(n) // into another slot: this one is a whole round away
			}
		}
		head := &w.fine[w.now%fineSlots]
		for t := head.next; t != head; t = head.next {
			w.Clear(t)
			t.Owner.Timeout()
		}
	}
}

// Next returns how long after the given time the next call of Advance is due; negative if no timer is set.
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

// distance returns how many slots after from, going round, the first slot is that is not empty; -1 if all are empty.
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
