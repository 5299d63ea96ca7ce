package proxy

import "math/bits"

// A wheel keeps the timers of one loop: adding, removing and firing are a few instructions each, and nothing is allocated. It is
// coarse on purpose, a timer fires up to a tick late, or up to 2 s late if that is minutes away. ("Hashed and hierarchical timing
// wheels", Varghese and Lauck, 1987.)
//
// Timers within reach of the fine ring wait there, a slot a tick; others in the coarse ring, a slot per coarseTicks, and move to the fine
// one when their slot comes up. Beyond both, they wait at the far end of the coarse ring and are put in again from there.
type wheel struct {
	now   int64 // the tick up to which all has fired
	count int   // timers that are set

	// The slots are lists, and a bitmap each tells which are not empty.
	fine       [fineSlots]timer
	coarse     [coarseSlots]timer
	fineUsed   [fineSlots / 64]uint64
	coarseUsed [coarseSlots / 64]uint64
}

const (
	tick        = 8e6 // nanoseconds
	fineSlots   = 256
	coarseTicks = 128
	coarseSlots = 512
)

// A timer calls its owner once its time has come. It belongs to one loop.
type timer struct {
	prev, next *timer
	at         int64 // tick
	slot       int16 // in the fine ring if not negative, else -1-slot of the coarse one
	owner      timed
}

// A timed is what has a timer.
type timed interface{ timeout() }

func (w *wheel) init() {
	for i := range w.fine {
		w.fine[i].prev, w.fine[i].next = &w.fine[i], &w.fine[i]
	}
	for i := range w.coarse {
		w.coarse[i].prev, w.coarse[i].next = &w.coarse[i], &w.coarse[i]
	}
}

// set makes t fire at the given time, in nanoseconds of the loop's clock, at the next tick if that is past. If t is set already it moves.
func (w *wheel) set(t *timer, at int64) {
	w.clear(t)
	t.at = max((at+tick-1)/tick, w.now+1)
	w.count++
	w.insert(t)
}

func (w *wheel) insert(t *timer) {
	var head *timer
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

// clear makes t not fire, if it was set.
func (w *wheel) clear(t *timer) {
	if t.next == nil {
		return
	}
	w.unlink(t)
	w.count--
}

func (w *wheel) unlink(t *timer) {
	t.prev.next, t.next.prev = t.next, t.prev
	if t.prev == t.next { // both are the head: the slot is empty now
		if i := int64(t.slot); i >= 0 {
			w.fineUsed[i/64] &^= 1 << (i % 64)
		} else {
			i = -1 - i
			w.coarseUsed[i/64] &^= 1 << (i % 64)
		}
	}
	t.prev, t.next = nil, nil
}

// skip lets time go by at once if no timer is set.
func (w *wheel) skip(now int64) {
	if w.count == 0 {
		w.now = max(w.now, now/tick)
	}
}

// advance fires all timers that are due at the given time. Owners may set and clear any timers meanwhile.
func (w *wheel) advance(now int64) {
	for to := now / tick; w.now < to; {
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
			w.clear(t)
			t.owner.timeout()
		}
	}
}

// next is how many nanoseconds from the given time the loop may sleep; negative for ever.
func (w *wheel) next(now int64) int64 {
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
	return max(at*tick-now, 0)
}

// distance is how many slots from slot from, going round, the first is that is not empty; -1 if all are.
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
