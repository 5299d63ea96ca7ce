package proxy

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A proxySocket is one listener, of one service or of several that share it.
type proxySocket interface {
	// Addr returns the address that clients dial, with the port that the kernel has chosen if any.
	Addr() lb.Addr

	// ProxyLoop serves clients until Close or Shutdown, and then returns ErrClosed. ProxyLoop returns nil at once if
	// goroutines of the engine serve the socket. No temporary error ends ProxyLoop. Call it once.
	ProxyLoop() error

	// Close stops at once, and returns when nothing of the socket is left. Open TCP connections are reset, and UDP
	// sessions end. Close may be called again, and during Shutdown.
	Close() error

	// Shutdown takes no new clients, and returns when all present clients have finished. If ctx ends first, Shutdown
	// closes the socket and returns ctx.Err(). A UDP session counts as finished after drainQuiet without a datagram.
	Shutdown(ctx context.Context) error

	// stop makes the socket accept no new clients. Shutdown and Close do the same.
	stop()

	// release gives up the socket and all UDP sessions, because another process serves them. TCP connections go on.
	release()

	// descriptors returns duplicates of all sockets of the listener, always in the same order. After an error,
	// descriptors returns no socket.
	descriptors() ([]int, error)

	// shareAddress sets whether other sockets of this process may bind overlapping addresses with the same port.
	shareAddress(on bool) error

	// countDrops adds the datagrams that the kernel has dropped at a UDP listener to the service's counters. countDrops
	// does nothing for TCP.
	countDrops()

	// serve makes t the services of new clients. A UDP socket has one. serve is also called when the specification of a
	// service has changed.
	serve(t *tenants)
}

// An engine moves bytes in its own way. An engine makes proxy sockets.
type engine interface {
	// loopCount returns how many sets of counters a service needs, see service.at.
	loopCount() int

	listenTCP(o listenSpec, s *service) (proxySocket, error)
	listenUDP(o listenSpec, s *service) (proxySocket, error)

	// list looks at the next placesAtOnce places and adds the connections that q wants to page. list stops when page is
	// full. list returns the number of the place to continue from, and whether the shard may have more.
	list(from place, q *ConnectionQuery, page *[]Connection) (number int, more bool)

	// endpointsGone tells the engine that these members of one service have left for good. endpointsGone does not
	// block. endpointsGone may be called for several services at once.
	endpointsGone(members []*lb.Member)

	// respecified tells the engine that connections of s may have to end at another time than before. respecified does
	// not block.
	respecified(s *service)

	// forbid resets the connections soon, because of why. forbid does not block. Some may have ended meanwhile.
	forbid(all []identifiedConn, why error)

	// pulses returns pulses of everything that accepts or serves clients. Goroutines that only a new client would wake
	// are not included.
	pulses() []*pulse

	// stuck returns an error for each goroutine of an engine's turns that has been busy with one client for patience.
	stuck(patience time.Duration) []error

	// setForking tells the engine whether the process may fork from now on, see Proxier.Sockets.
	setForking(on bool)

	// close frees what the engine holds. The sockets of the engine must be closed before.
	close()
}

// network returns the network name with which package net listens on addr only. An IPv4 wildcard excludes IPv6, and an
// IPv6 wildcard includes IPv4.
func network(p Protocol, addr netip.Addr) string {
	switch {
	case addr.Is4():
		return p.String() + "4"
	case addr.IsUnspecified():
		return p.String()
	}
	return p.String() + "6"
}

// Bounds of the wait after a temporary error, such as a lack of descriptors.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// sleep waits for d, or until done is closed. sleep returns false if done is closed.
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

// keepAlive detects vanished peers within two minutes. The keep-alive probes are rare enough not to wake idle networks
// often.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 6}

// A tracker counts running goroutines and other work. After stop no new work can start, and wait waits for the running
// work.
type tracker struct {
	mu      sync.Mutex
	stopped bool
	wg      sync.WaitGroup
}

// run runs f in a goroutine. After stop, run returns false and does not run f.
func (t *tracker) run(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock() // the check and the Add must be one step, so that stop cannot come between them
	if t.stopped {
		return false
	}
	t.wg.Go(f)
	return true
}

// add counts other work than a goroutine as running until done is called. After stop, add returns false.
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

// stop lets no new work start. stop does not wait.
func (t *tracker) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
}

// wait waits until all work has ended, or returns ctx.Err(). Call wait after stop.
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
