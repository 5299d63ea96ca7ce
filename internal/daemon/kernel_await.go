package daemon

import (
	"context"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/kernel"
)

const (
	// openEvery is how often a process that was replaced looks whether it still has connections on the kernel path. The
	// programs do not tell when one ends.
	openEvery = time.Second

	// connectedEvery is openEvery for UDP sockets that are connected, which no counter counts: they must be listed.
	connectedEvery = 10 * time.Second

	// answersLast is how long a process that was replaced waits for answers to UDP sockets that are not connected. Only
	// this process knows to which service they belong.
	answersLast = 5 * time.Second
)

// awaitEnds waits until the last connection on the kernel path has ended, and the last UDP socket that is connected, or
// until ctx ends.
func (k *kernelKeeper) awaitEnds(ctx context.Context) {
	began := time.Now()
	for {
		pause := openEvery
		if !k.anyOpen(time.Since(began) < answersLast) {
			if !k.connectedUDP(ctx) {
				return
			}
			pause = connectedEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// connectedUDP reports whether a UDP socket is connected to an endpoint. It returns false if the sockets cannot be
// listed.
func (k *kernelKeeper) connectedUDP(ctx context.Context) bool {
	if !k.anyOpen(true) { // there is no UDP service
		return false
	}
	k.mu.Lock()
	path := k.path
	k.mu.Unlock()
	if path == nil {
		return false
	}
	all, err := path.Sockets(ctx)
	if err != nil {
		k.log.Debug("sockets on the kernel path are not awaited, they cannot be listed", "error", err)
		return false
	}
	// Only sockets that are not connected have been idle for a known time.
	return slices.ContainsFunc(all, func(s kernel.Socket) bool { return s.UDP && s.Idle == 0 })
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
