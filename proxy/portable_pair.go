package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A portablePair is a client's connection and the endpoint's connection that serves it.
//
// Each direction has its own goroutine, which moves bytes until the direction's source ends. A pair ends in these ways:
//
//	source ends (FIN)      -> FIN to the destination; the other direction goes on, within the half-close timeout
//	both sources ended     -> both connections are closed
//	source fails (RST)     -> what was read is delivered, then the destination gets a RST; both directions end
//	destination fails      -> the direction ends; the other direction delivers what the failed peer had sent before,
//	                          then the source gets a RST
//	idle for too long      -> both connections are closed; with a RST if something is cut short, because a direction
//	                          had ended or has bytes left. Bytes that a peer takes from the kernel's buffers count as
//	                          movement
//	cut                    -> RST to both peers
//
// With TLS, an end is a close_notify and a FIN; a FIN without close_notify is a failure of the source.
type portablePair struct {
	client, server streamConn
	service        *service
	endpoint       *lb.Member // endpoint that server connects to; nil if there is none
	limits         limits
	began          time.Time

	seed     uint64
	last     atomic.Int64 // when bytes last moved, in nanoseconds since began
	asked    atomic.Bool  // whether the client was the last to send
	up, down atomic.Int64 // bytes moved to the endpoint and from the endpoint

	mu      sync.Mutex
	ends    int // number of directions that have ended
	unsent  unsentCount
	silence silence
	reset   bool      // the connections must be closed by RST
	hasty   bool      // the connections close without waiting for delivery
	closing bool      // both directions have ended or must end now
	why     endReason // first reason for the end of the pair
	cause   error     // error that ended the pair, if it has failed

	// untaken holds the client's first bytes if no endpoint has taken any of them yet. The pair moves untaken before
	// any other bytes.
	untaken []byte

	header []byte // PROXY header for the endpoint; nil if the endpoint's end is bare
	kept   bool   // everything that was read from the client is in untaken

	hungUp bool         // the endpoint reset the connection before it sent anything
	denied *deniedError // the endpoint denied the connection; nil if it did not
	lost   bool         // bytes that were read are neither written nor in untaken, or one side has ended properly
	redial bool         // no bytes were moved, and the client's connection stays open for another endpoint
}

func newPortablePair(client, server streamConn, s *service) *portablePair {
	return &portablePair{
		client: client, server: server, service: s, limits: s.spec.Load().limits(), began: time.Now(),
		seed: rand.Uint64(),
	}
}

// relay moves bytes in both directions until the pair has ended. relay then closes both connections, but leaves the
// client's connection open if another endpoint can take over.
func (p *portablePair) relay(pipes *pipePool) {
	p.mu.Lock()
	if !p.closing { // the pair may have been cut before relay
		p.deadlinesLocked()
	}
	p.mu.Unlock()
	done := make(chan struct{})
	go p.downstream(pipes, done)
	p.upstream(pipes)
	<-done
	p.close()
}

// upstream and downstream are separate functions so that a stack dump shows the direction of each goroutine.

func (p *portablePair) upstream(pipes *pipePool) {
	p.move(&mover{pair: p, src: p.client, dst: p.server, pipes: pipes, moved: &p.up, total: &p.service.at(0).bytesUp})
}

func (p *portablePair) downstream(pipes *pipePool, done chan<- struct{}) {
	defer close(done)
	p.move(&mover{pair: p, src: p.server, dst: p.client, pipes: pipes, moved: &p.down,
		total: &p.service.at(0).bytesDown})
}

// move runs one direction to its end, and then decides what that means for the other direction.
func (p *portablePair) move(m *mover) {
	err := m.start()
	if isSecure(m.dst) && p.endsProperly(m, err) {
		err = m.takeLeave()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err = p.endLocked(m, err)
	p.ends++
	p.silence.over[p.sideOf(m.src)] = true
	switch {
	case err == errIdle:
	case m.src == p.server && errors.Is(err, syscall.ECONNRESET):
	case m.src == p.client && p.kept && p.up.Load() == 0:
	default:
		p.lost = true
	}
	if err == errStuck {
		p.reset = true // otherwise the end would look like a proper one, although this direction is cut short
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
			p.reset = true // the destination has gone; the other direction will find out
		}
		p.touch() // the half-close timeout counts from this moment
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
		if m.src == p.server && p.down.Load() == 0 {
			p.denied = denialOf(p.endpoint, mayDeny(p.server), err)
		}
		if p.denied != nil { // what has failed before has failed because of that
			p.why, p.cause = unservedFor(RefusedDenied), p.denied.why
		}
		p.because(failedBy(p.sideOf(m.src)), err)
		p.reset = true
		p.interruptLocked()
	}
}

// endLocked returns err, the error that has ended m, or ECONNRESET if the end that the system has reported is in truth
// a reset. The kernel reports a reset only once. If the other direction got that report when it wrote, the read of this
// direction finds an end instead.
func (p *portablePair) endLocked(m *mover, err error) error {
	reported := io.EOF
	if isSecure(m.src) {
		reported = errTruncated // io.EOF is a close_notify
	}
	if err == reported && (p.ends == 0 && connGone(m.src) || m.src == p.server && p.hungUp) {
		return syscall.ECONNRESET
	}
	return err
}

// endsProperly reports whether the source of m has ended with err so that its destination is to see a proper end too.
func (p *portablePair) endsProperly(m *mover, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.endLocked(m, err) == io.EOF && !p.reset && !p.closing
}

func (p *portablePair) sideOf(c streamConn) int {
	if c == p.client {
		return clientSide
	}
	return serverSide
}

// blame sets hungUp if the endpoint was the first to fail, by a reset and within earlyReset.
func (p *portablePair) blame(c streamConn, err error) {
	reset := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	p.hungUp = p.hungUp || p.why == notEnded && c == p.server && reset && time.Since(p.began) < earlyReset
}

// isRefusedByTLS reports whether TLS with the endpoint has failed before the endpoint sent anything. With TLS 1.3, a
// server tells only after the handshake that it does not accept the client's certificate.
func (p *portablePair) isRefusedByTLS() bool {
	return isSecure(p.server) && p.why == failedBy(serverSide) && p.down.Load() == 0 && p.cause != errTruncated &&
		!errors.As(p.cause, new(syscall.Errno))
}

// tellBalancer reports how the pair has ended to the balancer, and to the log if that was the endpoint's doing.
func (p *portablePair) tellBalancer(client netip.AddrPort) {
	switch {
	case p.denied != nil:
		p.service.denied(client, p.denied)
	case p.hungUp && p.down.Load() == 0:
		p.endpoint.Failed(lb.Reset)
	case p.isRefusedByTLS():
		p.service.notReached(p.endpoint, endpointHandshakeError(p.endpoint, p.cause),
			"endpoint ended the connection by TLS")
	}
	if mayDeny(p.server) && p.down.Load() == 0 && time.Since(p.began) < earlyReset && isUnanswered(p.why, p.cause) {
		p.endpoint.Unanswered()
	}
}

func (p *portablePair) because(why endReason, cause error) {
	if p.why == notEnded {
		p.why, p.cause = why, cause
	}
}

// cut ends the pair at once, by RST. Bytes that are still on their way are lost. cause is the error that belongs to
// why, or nil.
func (p *portablePair) cut(why endReason, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hasty {
		return
	}
	if why == endLeft {
		p.service.at(0).endedLeft.Add(1)
	}
	if why == endIntention { // even if a side had ended before
		p.why = notEnded
	}
	p.because(why, cause)
	p.reset, p.hasty = true, true
	p.interruptLocked()
}

// interruptLocked makes both directions end soon. interruptLocked closes no connection, because the goroutines still
// use both.
func (p *portablePair) interruptLocked() {
	p.closing = true
	p.client.SetDeadline(p.began)
	p.server.SetDeadline(p.began)
}

// close closes both connections after both directions have ended.
func (p *portablePair) close() {
	p.mu.Lock()
	reset, hasty := p.reset, p.hasty
	p.redial = p.hungUp && p.denied == nil && !p.lost && !hasty && p.up.Load() == 0 && p.down.Load() == 0
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

// touch records that bytes have moved.
func (p *portablePair) touch() { p.last.Store(int64(time.Since(p.began))) }

// deadlinesLocked sets the deadlines of both connections from the time when bytes last moved. Deadlines do not change
// with each byte: when a deadline passes, expired checks whether bytes have moved since. Deadlines apply to writes too,
// because a peer that never reads must not hold the pair for ever.
func (p *portablePair) deadlinesLocked() { p.deadlinesWithinLocked(peerLookEvery) }

// deadlinesWithinLocked is deadlinesLocked, but the next check whether the peers answer comes after limit.
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

// expired decides what err means for m, which has waited for w. If end is true, the pair must end: it is too old, idle
// for too long, closing, or a peer is gone. If goOn is true, a deadline has passed although the pair is not idle, and
// expired has set new deadlines. If err is not a passed deadline, both results are false.
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

// errIdle ends a direction after no bytes have moved in either direction for the whole timeout. errStuck is errIdle for
// a direction with bytes that its destination does not take.
var (
	errIdle  = errors.New("idle")
	errStuck = fmt.Errorf("%w: the peer accepts no more bytes", errIdle)
)

// A writeError is a failure of the destination, as opposed to the source.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

// deliver sends what TLS has to say, and waits until the peers have acknowledged what was written to them, because a
// reset discards what is still on its way. The kernel has no event for that, so deliver polls with growing pauses.
func deliver(conns ...streamConn) {
	ctx, cancel := context.WithTimeout(context.Background(), deliverTimeout)
	defer cancel()
	pause := time.Millisecond
	for _, c := range conns {
		if s, is := c.(*secureConn); is {
			limit, _ := ctx.Deadline()
			s.flushUntil(limit)
		}
		for connUnsent(c) > 0 && sleep(ctx.Done(), pause) {
			pause = min(2*pause, 50*time.Millisecond)
		}
	}
}
