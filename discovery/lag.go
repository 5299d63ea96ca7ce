package discovery

import (
	"sync"
	"time"
)

// A Lag is a histogram of the time that changes took. The time runs from the first byte of Consul's answer until all
// services that share the query have the new set. A Lag does not include the time that Consul itself took.
type Lag struct {
	Buckets [lagBuckets]uint64 // number of changes in each bucket, not cumulative; see LagBounds
	Sum     time.Duration      // total time of all changes
}

const lagBuckets = 12

// LagBounds returns the upper bounds of the buckets, smallest first. The last bucket has no upper bound.
func LagBounds() [lagBuckets - 1]time.Duration {
	return [...]time.Duration{
		100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
		50 * time.Millisecond, 250 * time.Millisecond, time.Second, 5 * time.Second,
	}
}

// A lag collects a Lag. A lag is safe for concurrent use.
type lag struct {
	mu sync.Mutex
	is Lag
}

// observe adds a change that took the given time.
func (l *lag) observe(took time.Duration) {
	bounds, i := LagBounds(), 0
	for i < len(bounds) && took > bounds[i] {
		i++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.is.Buckets[i]++
	l.is.Sum += took
}

// Lag returns how long changes have taken so far.
func (c *Consul) Lag() Lag {
	c.lag.mu.Lock()
	defer c.lag.mu.Unlock()
	return c.lag.is
}
