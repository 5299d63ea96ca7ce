package lb

import "sync"

// The retry budget of a service: a fifth of its picks of the last ten seconds or so, and ten a second whatever there
// is.
const (
	retryShare  = 0.2
	retryWindow = 10e9 // nanoseconds
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
	last      int64 // when it was looked at, on the registry's clock; 0: never
	picksSeen int64 // first picks then
	earned    float64
	reserve   float64
}

// spend takes a token, if there is one. Firsts is how many first picks there have been.
func (b *budget) spend(firsts, now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	elapsed := float64(now - b.last)
	if b.last == 0 {
		elapsed = retryWindow
	}
	// What came longer ago than the window counts no more; when within the time elapsed it came is not known.
	recent := min(1, retryWindow/max(elapsed, 1))
	b.earned = b.earned*max(0, 1-elapsed/retryWindow) + retryShare*float64(firsts-b.picksSeen)*recent
	b.reserve = min(b.reserve+retryFloor*elapsed/1e9, retryFloor*retryWindow/1e9)
	b.last, b.picksSeen = now, firsts
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
