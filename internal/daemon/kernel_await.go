package daemon

import (
	"context"
	"time"
)

const (
	// openEvery is how often a process that was replaced looks whether it still has connections on the kernel path. The
	// programs do not tell when one ends.
	openEvery = time.Second

	// answersLast is how long a process that was replaced waits for answers to UDP sockets that are not connected. Only
	// this process knows to which service they belong.
	answersLast = 5 * time.Second
)

// awaitEnds waits until the last connection on the kernel path has ended, or until ctx ends. It does not know whether
// UDP sockets are still open.
func (k *kernelKeeper) awaitEnds(ctx context.Context) {
	answered := time.Now().Add(answersLast)
	ticks := time.NewTicker(openEvery)
	defer ticks.Stop()
	for k.anyOpen(time.Now().Before(answered)) {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// anyOpen reports whether a connection on the kernel path is open. With udp it also returns true if a UDP service is on
// the kernel path.
func (k *kernelKeeper) anyOpen(udp bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == nil {
		return false
	}
	for name, s := range k.services {
		if c, _ := k.path.Counters(name); c.Open > 0 || s.udp && udp {
			return true
		}
	}
	return false
}
