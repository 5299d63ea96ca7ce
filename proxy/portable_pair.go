package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A portablePair is a client's connection and the endpoint's connection that serves it.
//
// Each direction is moved by its own goroutine until its source ends. How the two ends come about:
//
//	source ends (FIN)      -> FIN to the destination; the other direction goes on, within the half-close timeout
//	both sources ended     -> both connections are closed
//	source fails (RST)     -> what was read is delivered, then the destination gets a RST; all is over
//	destination fails      -> the direction stops; the other one delivers what the failed peer had sent before, then
//	                          the source gets a RST
//	nothing moves for long -> both are closed; with a RST if a direction had ended or has bytes left, for then
//	                          something is cut short.
//	                          What a peer takes from the kernel's buffers moves too
//	cut                    -> RST both ways
//
// The conns are never wrapped: splice(2) needs them as they are.
type portablePair struct {
	client, server *net.TCPConn
	service        *service
	endpoint       *lb.Member // that server leads to; nil: none
	limits         limits
	began          time.Time

	seed     uint64
	last     atomic.Int64 // when something moved last, in nanoseconds since began
	asked    atomic.Bool  // the client was the last to say something
	up, down atomic.Int64 // bytes moved

	mu      sync.Mutex
	ends    int // directions that have ended
	unsent  unsentCount
	silence silence
	reset   bool      // the connections are to be closed by RST
	hasty   bool      // without waiting until the peers have what was written to them
	closing bool      // both directions are over or must end now
	why     endReason // of the end: the first one
	cause   error     // of a failure

	// The client's first bytes, if no endpoint has taken any of them yet. They are the first that the pair moves.
	untaken []byte

	hungUp bool // the endpoint reset the connection before it sent anything
	lost   bool // something of what was read is neither written nor in untaken, or one side has ended properly
	redial bool // nothing was moved either way, and the client's connection is left open for another endpoint
}

func newPortablePair(client, server *net.TCPConn, s *service) *portablePair {
	return &portablePair{
		client: client, server: server, service: s, limits: s.spec.Load().limits(), began: time.Now(),
		seed: rand.Uint64(),
	}
}

// relay moves bytes both ways until the pair has ended, and leaves both connections closed; but the client's, if
// another endpoint can take over.
func (p *portablePair) relay(pipes *pipePool) {
	p.mu.Lock()
	if !p.closing { // a cut may have come before
		p.deadlinesLocked()
	}
	p.mu.Unlock()
	done := make(chan struct{})
	go p.downstream(pipes, done)
	p.upstream(pipes)
	<-done
	p.close()
}

// upstream and downstream are functions of their own so that a stack dump says which way a goroutine moves bytes.

func (p *portablePair) upstream(pipes *pipePool) {
	p.move(&mover{pair: p, src: p.client, dst: p.server, pipes: pipes, moved: &p.up, total: &p.service.at(0).bytesUp})
}

func (p *portablePair) downstream(pipes *pipePool, done chan<- struct{}) {
	defer close(done)
	p.move(&mover{pair: p, src: p.server, dst: p.client, pipes: pipes, moved: &p.down,
		total: &p.service.at(0).bytesDown})
}

// move runs one direction to its end, and then tells the other what that means for it.
func (p *portablePair) move(m *mover) {
	err := m.start()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends++
	p.silence.over[p.sideOf(m.src)] = true
	if err == io.EOF && (p.ends == 1 && connGone(m.src) || m.src == p.server && p.hungUp) {
		// The kernel reports a reset only once. The other direction had that report when it wrote, so reading finds an
		// end.
		err = syscall.ECONNRESET
	}
	switch {
	case err == errIdle:
	case m.src == p.server && errors.Is(err, syscall.ECONNRESET):
	case m.src == p.client && len(p.untaken) > 0 && p.up.Load() == 0:
	default:
		p.lost = true
	}
	if err == errStuck {
		p.reset = true // else the end would look like a proper one, though this direction is cut short
	}
	if p.closing {
		return
	}
	var failed *writeError
	switch {
	case errors.Is(err, io.EOF):
		p.because(closedBy(p.sideOf(m.src)), nil)
		if p.ends == 2 || p.reset {
			return
		}
		if m.dst.CloseWrite() != nil {
			p.reset = true // the destination is gone already; its own direction will find out
		}
		p.touch() // the half-close timeout counts from here
		p.deadlinesLocked()
	case errors.As(err, &failed):
		p.blame(m.dst, err)
		p.because(failedBy(p.sideOf(m.dst)), err)
		p.reset = true
		p.touch()
		p.deadlinesLocked()
	case errors.Is(err, errIdle):
		p.because(endIdle, nil)
		p.reset = p.reset || p.ends == 2
		p.interruptLocked()
	default:
		p.blame(m.src, err)
		p.because(failedBy(p.sideOf(m.src)), err)
		p.reset = true
		p.interruptLocked()
	}
}

func (p *portablePair) sideOf(c *net.TCPConn) int {
	if c == p.client {
		return clientSide
	}
	return serverSide
}

// blame notes who failed first, if that was the endpoint, by a reset, and early.
func (p *portablePair) blame(c *net.TCPConn, err error) {
	reset := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	p.hungUp = p.hungUp || p.why == notEnded && c == p.server && reset && time.Since(p.began) < earlyReset
}

func (p *portablePair) because(why endReason, cause error) {
	if p.why == notEnded {
		p.why, p.cause = why, cause
	}
}

// cut ends the pair from outside, by RST, at once: what is still on its way is lost.
func (p *portablePair) cut(why endReason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hasty {
		return
	}
	if why == endLeft {
		p.service.at(0).endedLeft.Add(1)
	}
	p.because(why, nil)
	p.reset, p.hasty = true, true
	p.interruptLocked()
}

// interruptLocked makes both directions end soon. It closes nothing, for the goroutines still use the connections.
func (p *portablePair) interruptLocked() {
	p.closing = true
	p.client.SetDeadline(p.began)
	p.server.SetDeadline(p.began)
}

// close closes both connections after both directions have ended.
func (p *portablePair) close() {
	p.mu.Lock()
	reset, hasty := p.reset, p.hasty
	p.redial = p.hungUp && !p.lost && !hasty && p.up.Load() == 0 && p.down.Load() == 0
	p.mu.Unlock()
	if p.redial {
		abort(p.server)
		return
	}
	if !reset {
		p.client.Close()
		p.server.Close()
		return
	}
	if !hasty {
		deliver(p.client, p.server)
	}
	abort(p.client)
	abort(p.server)
}

// touch notes that something moved.
func (p *portablePair) touch() { p.last.Store(int64(time.Since(p.began))) }

// deadlinesLocked sets the deadlines of both connections by the time that something moved last. They are not moved
// with each byte: when one passes, expired looks whether something moved since. Both for reading and writing, for a
// peer that never reads must not hold the pair for ever either.
func (p *portablePair) deadlinesLocked() { p.deadlinesWithinLocked(peerLookEvery) }

// deadlinesWithinLocked is deadlinesLocked with the next look at whether the peers answer after limit.
func (p *portablePair) deadlinesWithinLocked(limit time.Duration) {
	t := p.timingLocked()
	next := t.instant + limit
	if at, ok := t.nextLook(); ok {
		next = min(next, at)
	}
	p.setDeadlinesLocked(p.began.Add(next))
}

func (p *portablePair) setDeadlinesLocked(at time.Time) {
	p.client.SetDeadline(at)
	p.server.SetDeadline(at)
}

// expired is asked when m has waited for w and got err. It tells whether that was a deadline that means the end,
// because the pair has been idle for too long or is over. If it was one that passed although something moved or moves,
// expired sets new ones and tells to go on.
func (p *portablePair) expired(m *mover, w waitsFor, err error) (end, goOn bool) {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return true, false
	}
	waited, silent := p.unanswered()
	if waited >= peerGoneAfter {
		p.because(failedBy(silent), syscall.ETIMEDOUT)
		p.reset = true
		return true, false
	}
	t := p.timingLocked()
	due := t.due(p.isSettled, p.isTakenLocked)
	if (due == oldAndQuiet || due == tooSilent) && !p.isSilentLocked(m, w) {
		p.setDeadlinesLocked(time.Now().Add(lookAgain))
		return false, true
	}
	switch due {
	case oldAndQuiet, tooOld:
		p.because(endAged, nil)
		p.service.at(0).endedAged.Add(1)
		p.reset = p.reset || due == tooOld
		p.interruptLocked()
		return true, false
	case tooSilent:
		return true, false
	case stillTaken:
		p.touch()
	}
	p.deadlinesWithinLocked(nextPeerLook(waited))
	return false, true
}

// errIdle ends a direction over which, and over whose counterpart, nothing moved for the whole limit; errStuck is
// the same for one that holds bytes that its destination does not take.
var (
	errIdle  = errors.New("idle")
	errStuck = fmt.Errorf("%w: the peer takes no more", errIdle)
)

// A writeError is a failure of the destination, as opposed to the source.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

// deliver waits until the peers have what was written to them: a reset throws away what is still on its way. There
// is nothing to be woken by, so it looks again and again, ever less often.
func deliver(conns ...*net.TCPConn) {
	ctx, cancel := context.WithTimeout(context.Background(), deliverTimeout)
	defer cancel()
	pause := time.Millisecond
	for _, c := range conns {
		for connUnsent(c) > 0 && sleep(ctx.Done(), pause) {
			pause = min(2*pause, 50*time.Millisecond)
		}
	}
}
