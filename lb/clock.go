package lb

import (
	"math"
	"sync/atomic"
	"time"
)

// An instant is a point in time, counted in nanoseconds since its clock was created. A zero instant means that there is
// no instant.
type instant time.Duration

// distantFuture is later than every instant of a clock.
const distantFuture instant = math.MaxInt64

// add returns the instant d after i.
func (i instant) add(d time.Duration) instant { return i + instant(d) }

// sub returns the time from earlier to i.
func (i instant) sub(earlier instant) time.Duration { return time.Duration(i - earlier) }

// An atomicInstant is an instant that several goroutines may use. The zero atomicInstant holds no instant.
type atomicInstant struct{ nanoseconds atomic.Int64 }

func (a *atomicInstant) Load() instant { return instant(a.nanoseconds.Load()) }

func (a *atomicInstant) Store(i instant) { a.nanoseconds.Store(int64(i)) }

func (a *atomicInstant) CompareAndSwap(old, new instant) bool {
	return a.nanoseconds.CompareAndSwap(int64(old), int64(new))
}

// A clock returns the current instant. A clock is monotonic: setting the system's clock does not change it.
type clock struct{ start time.Time }

func newClock() clock { return clock{time.Now()} }

// now returns the current instant, which is never zero.
func (c clock) now() instant { return instant(time.Since(c.start)).add(1) }
