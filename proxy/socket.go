package proxy

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A proxySocket is one listener of one service.
type proxySocket interface {
	// Addr is the address that clients dial, with the real port.
	Addr() netip.AddrPort

	// ProxyLoop serves clients until Close or Shutdown, and returns ErrClosed then; or nil at once, if others serve
	// them from then on. No passing error ends that. Call it once.
	ProxyLoop() error

	// Close stops at once, and returns when nothing of the socket is left: clients of open TCP connections get a
	// reset, UDP sessions end. It may be called again, and during Shutdown.
	Close() error

	// Shutdown takes no new clients, and returns when those that are being served have finished, or else, when ctx
	// ends, closes and returns ctx.Err(). A UDP session counts as finished when it has been quiet for a moment.
	Shutdown(ctx context.Context) error

	// stop takes no new clients. Shutdown and Close do that too.
	stop()

	// release lets go of the socket, and of all UDP sessions: another process serves it. TCP connections go on.
	release()

	// descriptors returns duplicates of the sockets, all of them, in an order that is always the same; or an error,
	// and none.
	descriptors() ([]int, error)

	// shareAddress lets other sockets of ours take overlapping addresses with the same port while it is on.
	shareAddress(on bool) error

	// countDrops counts for the service what the kernel has dropped at a UDP listener. For TCP it does nothing.
	countDrops()

	// serve makes s the service of clients that come from now on. It is called too when the specification of s has
	// changed.
	serve(s *service)
}

// An engine makes proxy sockets: the way in which bytes are moved.
type engine interface {
	// loopCount is how many goroutines count apart from one another, see service.at.
	loopCount() int

	listenTCP(o listenSpec, s *service) (proxySocket, error)
	listenUDP(o listenSpec, s *service) (proxySocket, error)

	// list adds to page what q wants of what is served in the next placesAtOnce places, until the page is full. It
	// returns the place to go on from, and whether there may be more in that shard.
	list(from place, q *ConnectionQuery, page *[]Connection) (number int, more bool)

	// endpointsGone is told of members of one service that have left for good. It does not wait. It is called for
	// several services at once.
	endpointsGone(members []*lb.Member)

	// respecified is told that connections of s may have to end at another time than before. It does not wait.
	respecified(s *service)

	// pulses ask all that serves or takes clients, but for goroutines that a client more would have to wake.
	pulses() []*pulse

	// stuck returns an error for each of those goroutines that has been busy with one client for patience, see turns.
	stuck(patience time.Duration) []error

	// setForking says whether the process may be forked from now on, see Proxier.Sockets.
	setForking(on bool)

	// close gives back what the engine holds. Its sockets must be closed.
	close()
}

// network is the network name under which package net listens on addr and nothing else: an IPv4 wildcard without
// IPv6, but the IPv6 wildcard with both.
func network(p Protocol, addr netip.Addr) string {
	switch {
	case addr.Is4():
		return p.String() + "4"
	case addr.IsUnspecified():
		return p.String()
	}
	return p.String() + "6"
}

// Bounds of the wait after an error that may pass, such as running out of descriptors.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// sleep waits for d, and tells whether done was still open then.
func sleep(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return false
	case <-t.C:
		return true
	}
}

// keepAlive finds peers that vanished without a word within two minutes, without waking idle networks often.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 6}

// A tracker counts what is running, so that a stop can wait for it and nothing can start after the stop.
type tracker struct {
	mu      sync.Mutex
	stopped bool
	wg      sync.WaitGroup
}

// run runs f in a goroutine, or returns false after stop.
func (t *tracker) run(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock() // the check and the Add are one step, else a stop could come between them and miss f
	if t.stopped {
		return false
	}
	t.wg.Go(f)
	return true
}

// add counts something that is not a goroutine as running, until done; or it returns false after stop.
func (t *tracker) add() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	t.wg.Add(1)
	return true
}

func (t *tracker) done() { t.wg.Done() }

// stop lets nothing new run. It does not wait.
func (t *tracker) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
}

// wait returns when all that was running has ended, or with ctx.Err() before. Call it after stop.
func (t *tracker) wait(ctx context.Context) error {
	ended := make(chan struct{})
	go t.signal(ended)
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *tracker) signal(ended chan<- struct{}) {
	t.wg.Wait()
	close(ended)
}
