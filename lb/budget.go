package lb

import (
	"sync"
	"time"
)

// The retry budget of a service: a fifth of its picks of the last ten seconds or so, and ten a second whatever there
// is.
const (
	retryShare  = 0.2
	retryWindow = 10 * time.Second
	retryFloor  = 10.0 // a second
)

// A budget bounds how often clients who have tried an endpoint in vain may try one that is failing, too: when all of
// a service is dead or overloaded, a service of many clients must not turn into one of three times as many. To try
// an endpoint that answers is free, and so is every client's first pick.
//
// It is a bucket of tokens that first picks fill, and that runs out by itself within the window; and another one
// that time fills.
type budget struct {
	mu        sync.Mutex
	last      instant // when it was looked at, on the registry's clock; 0: never
	picksSeen int64   // first picks then
	earned    float64
	reserve   float64
}

// spend takes a token, if there is one. Firsts is how many first picks there have been.
func (b *budget) spend(firsts int64, now instant) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	elapsed := max(now.sub(b.last), 0) // callers may read the clock in one order and get here in another
	if b.last == 0 {
		elapsed = retryWindow
	}
	// What came longer ago than the window counts no more; when within the time elapsed it came is not known.
	windows := float64(elapsed) / float64(retryWindow)
	recent := min(1, 1/windows)
	b.earned = b.earned*max(0, 1-windows) + retryShare*float64(max(firsts-b.picksSeen, 0))*recent
	b.reserve = min(b.reserve+retryFloor*elapsed.Seconds(), retryFloor*retryWindow.Seconds())
	b.last, b.picksSeen = max(b.last, now), max(b.picksSeen, firsts)
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
