package discovery

import (
	"sync"
	"time"
)

// A Lag is how long changes took to be applied: from the first byte of Consul's answer until all services that want it have the new set. How
// long Consul itself took, nobody says.
type Lag struct {
	Buckets [lagBuckets]uint64 // not cumulative; see LagBounds
	Sum     time.Duration
}

const lagBuckets = 12

// LagBounds are the upper bounds of the buckets, smallest first. The last bucket has none.
func LagBounds() [lagBuckets - 1]time.Duration {
	return [...]time.Duration{
		100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
		10 * time.Millisecond, 50 * time.Millisecond, 250 * time.Millisecond, time.Second, 5 * time.Second,
	}
}

// A lag is a Lag that is being counted.
type lag struct {
	mu sync.Mutex
	is Lag
}

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

// Lag returns how long changes took so far.
func (c *Consul) Lag() Lag {
	c.lag.mu.Lock()
	defer c.lag.mu.Unlock()
	return c.lag.is
}
