package discovery

import (
	"sync"
	"time"
)

// A Lag counts how long changes took: from the first byte of Consul's answer until all services that want it have
// the new set. The time that Consul itself took is not known.
type Lag struct {
	Buckets [lagBuckets]uint64 // changes in each bucket, not cumulative; see LagBounds
	Sum     time.Duration      // of all changes
}

const lagBuckets = 12

// LagBounds returns the upper bounds of the buckets, smallest first. The last bucket has none.
func LagBounds() [lagBuckets - 1]time.Duration {
	return [...]time.Duration{
		100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
		50 * time.Millisecond, 250 * time.Millisecond, time.Second, 5 * time.Second,
	}
}

// A lag counts a Lag. Safe for concurrent use.
type lag struct {
	mu sync.Mutex
	is Lag
}

// observe counts a change that took so long.
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
