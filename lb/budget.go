package lb

import (
	"sync"
	"time"
)

// retryShare, retryWindow and retryFloor limit the retries of a service to a fifth of the first picks of the last ten
// seconds, plus ten retries a second.
const (
	retryShare  = 0.2
	retryWindow = 10 * time.Second
	retryFloor  = 10.0 // retries a second
)

// A budget limits retries on failing endpoints. If all endpoints of a service are dead or overloaded, retries must not
// multiply the load. A client's first pick costs no token, and neither does a retry on an endpoint that answers.
//
// A budget has two buckets of tokens. First picks fill the first bucket, and its tokens expire within retryWindow. Time
// fills the second bucket.
type budget struct {
	mu        sync.Mutex // guards the following fields
	last      instant    // time of the last spend; 0: no retry yet
	picksSeen int64      // first picks at the time of the last spend
	earned    float64    // tokens from first picks
	reserve   float64    // tokens from time
}

// spend takes a token, and reports whether there was one. firstPicks is the number of first picks so far.
func (b *budget) spend(firstPicks int64, now instant) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	elapsed := max(now.sub(b.last), 0) // concurrent callers may arrive out of order
	if b.last == 0 {
		elapsed = retryWindow
	}
	// Only first picks within the window earn tokens. Assume that the picks were spread evenly since the last spend.
	windows := float64(elapsed) / float64(retryWindow)
	recent := min(1, 1/windows)
	b.earned = b.earned*max(0, 1-windows) + retryShare*float64(max(firstPicks-b.picksSeen, 0))*recent
	b.reserve = min(b.reserve+retryFloor*elapsed.Seconds(), retryFloor*retryWindow.Seconds())
	b.last, b.picksSeen = max(b.last, now), max(b.picksSeen, firstPicks)
	switch {
	case b.earned >= 1:
		b.earned--
	case b.reserve >= 1:
		b.reserve--
	default:
		return false
	}
	return true
}
