package proxy

import (
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
	"github.com/lictor-proxy/lictor/proxy/internal/wheel"
)

// A loopPair consists of a client's connection and the endpoint's connection that serves it, in a loop. A client that
// has to send a PROXY header or a ClientHello begins in the state greeting. An endpoint that has to be asked for TLS
// makes the pair pass through the state asking. See docs/ends.md.
//
//	            an endpoint answered               both directions ended
//	connecting ----------------------> relaying --------------------------> closed
//	    |                                 |                                    ^
//	    | none did: RST                   | a side failed, or the limit        | delivered, or a second is over: RST
//	    v                                 v of a half-closed pair: RST         |
//	  closed                           lingering ------------------------------+
//
// The table at portablePair describes how each direction ends and what that means for the other direction.
type loopPair struct {
	timer  wheel.Timer
	loop   *eventLoop
	socket *loopTCP
	s      *service
	dial   *dialing // record of failed dials; nil once bytes have moved

	opening *opening // what is said before the client's bytes; nil if both ends are bare
	tls     *pairTLS // nil if neither end speaks TLS

	endpoint *lb.Member // endpoint that serves the client; nil before one is picked
	waiter   *lb.Waiter // place in the queue for an endpoint with capacity; nil if the pair does not wait

	prev, next *loopPair // neighbours in the list of endpointPairs
	src        netip.AddrPort

	fd     [2]int32
	flows  [2]flow       // the two directions, indexed by the side that sends
	began  time.Duration // when the client was accepted, by the loop's clock
	joined time.Duration // when the endpoint was reached, by the loop's clock; zero if it was not
	last   time.Duration // when bytes last moved, or the last dial began, by the loop's clock
	limits limits
	serial uint64 // see generation
	number int32
	unsent unsentCount

	state    pairState
	ends     int8    // number of directions that have ended
	readable [2]bool // epoll has reported input, and reading has not found the socket empty since
	writable [2]bool // epoll has reported space, and writing has not found the socket full since
	hangup   [2]bool // the source has ended, failed or sent urgent data: read until nothing is left
	reset    bool    // whether to close the sockets with RST
	kept     bool    // whether keep-alive is on
	grouped  bool    // whether the pair is listed in an endpointPairs
	asked    bool    // whether the client was the last to send bytes
	counted  bool    // whether service.countClient has counted the client
	reason   endReason
	errno    uint16 // the error that belongs to reason, a syscall.Errno
}

// A flow is one direction of a pair.
type flow struct {
	backlog  *backlog // bytes that were read and not yet written, oldest first
	moved    int64
	room     int32 // least number of bytes that the destination accepts; see loopPair.measureRoom
	bulk     bool  // whether to move bytes by splice
	queued   bool  // whether the direction waits for its task in the loop's next turn
	finished bool  // whether the source has ended, or its bytes cannot be used any more
}

type pairState int8

const (
	connecting pairState = iota
	greeting
	asking   // waits until the endpoint accepts sslRequest
	guessing // waits for the bytes that show whether the client speaks TLS
	securing // the TLS handshake with the client is under way
	relaying
	lingering
	pairClosed
)

// Limits for each turn: how often a direction may read, and after how many bytes it stops reading.
const (
	readsPerTurn = 4
	bytesPerTurn = 512 << 10
)

// lingerPoll is how often a lingering pair checks whether its peers have received everything.
const lingerPoll = 4 * time.Millisecond

// keepAliveAfter is the age at which a connection gets keep-alive. Shorter connections are not worth the system calls.
const keepAliveAfter = 15 * time.Second

// ready implements pollable.
func (p *loopPair) ready(side int, events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
		p.readable[side] = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
		p.hangup[side] = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		p.writable[side] = true
	}
	switch p.state {
	case relaying:
		if p.flows[side].finished && !p.flows[1-side].finished && events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			err := sys.SocketError(p.fd[side]) // of a reset after the end of the stream
			if err != 0 || !p.isUnix(side) {   // a Unix peer may close properly after its half-close
				p.sourceFailed(side, err)
				return
			}
		}
		if p.tls != nil {
			p.readyTLS(side)
			return
		}
		if p.readable[side] && !p.flows[side].queued {
			p.move(side)
		}
		if p.writable[side] && p.state == relaying && !p.flows[1-side].queued {
			p.move(1 - side)
		}
	case connecting:
		switch {
		case p.isShaking(side):
			p.tls.ends[side].shake.wake()
		case side == serverSide && p.fd[serverSide] >= 0 && p.writable[serverSide]:
			p.connected()
		case side == clientSide && events&(unix.EPOLLHUP|unix.EPOLLERR) != 0:
			p.clientReset()
		case side == clientSide && p.waiter != nil:
			if gone := p.deserted(); gone != nil {
				p.unserved(gone)
			}
		}
	case asking:
		if side == serverSide {
			p.hearAnswer()
		} else if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			p.clientReset()
		}
	case securing:
		p.tls.ends[clientSide].shake.wake()
	case guessing:
		p.guess()
		p.noticeReset(events)
	case greeting:
		p.hear()
		p.noticeReset(events)
	}
}

// noticeReset ends a pair whose opening has just ended if the client has failed: epoll reports that only once.
func (p *loopPair) noticeReset(events uint32) {
	if p.state == connecting && events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		p.clientReset()
	}
}

// clientReset ends a pair whose client has failed before an endpoint was reached.
func (p *loopPair) clientReset() {
	p.because(clientFailed, sys.SocketError(p.fd[clientSide]))
	p.close()
}

// isUnix reports whether a side is a Unix socket. The pair must have an endpoint.
func (p *loopPair) isUnix(side int) bool {
	if side == clientSide {
		return p.socket.addr.Path != ""
	}
	return p.endpoint.Path != ""
}

// move moves bytes from the given side to the other. It stops if none are left, they cannot be written, or the turn's
// limits are reached.
func (p *loopPair) move(from int) {
	if p.tls != nil {
		p.moveTLS(from)
		return
	}
	f := &p.flows[from]
	for n, bytes := 0, 0; p.state == relaying && !f.finished; n++ {
		if !p.flush(from) || !p.readable[from] || !p.writable[1-from] {
			return
		}
		if n == readsPerTurn || bytes >= bytesPerTurn {
			p.later(from)
			return
		}
		p.loop.relays = true
		if f.bulk {
			bytes += p.splice(from)
		} else {
			bytes += p.copy(from)
		}
	}
}

// copy moves the bytes of one read through the loop's buffer, and returns their number.
func (p *loopPair) copy(from int) int {
	l := p.loop
	n, err := sys.RecvStream(p.fd[from], l.buf[:])
	switch {
	case err == unix.EAGAIN:
		p.readable[from] = false
		return 0
	case err != 0:
		p.sourceFailed(from, err)
		return 0
	case n == 0:
		p.sourceEnded(from)
		return 0
	case n < len(l.buf):
		// After a short read the socket is empty, and epoll reports new bytes. After a hangup copy must read again:
		// epoll has already reported the end, and reading stops before urgent data.
		p.readable[from] = p.hangup[from] || sys.Faults
	default:
		p.flows[from].bulk = l.pipes.usable()
	}
	p.last, p.asked = l.now, from == clientSide
	m, err := sys.SendStream(p.fd[1-from], l.buf[:n])
	if err != 0 {
		if err != unix.EAGAIN {
			p.flows[from].backlog = l.keep(l.buf[:n])
			p.destinationFailed(from, err)
			return n
		}
		m = 0
	}
	p.countMoved(from, m)
	if m < n {
		p.writable[1-from] = false
		p.flows[from].backlog = l.keep(l.buf[m:n])
	}
	return n
}

// flush writes bytes that were read before, and reports whether none of them are left.
func (p *loopPair) flush(from int) bool {
	f, to := &p.flows[from], 1-from
	if f.backlog != nil && p.tls != nil && p.tls.ends[to] != nil {
		return p.flushTLS(from)
	}
	for f.backlog != nil {
		if !p.writable[to] {
			return false
		}
		k := f.backlog
		n, err := sys.SendStream(p.fd[to], k.buf[k.from:k.to])
		switch err {
		case 0:
			if k.from += n; k.from == k.to {
				f.backlog = k.next
				p.loop.forget(k)
			}
			p.last = p.loop.now
			if n = p.withoutOpening(from, n); n > 0 {
				p.countMoved(from, n)
			}
		case unix.EAGAIN:
			p.writable[to] = false
		default:
			p.destinationFailed(from, err)
			return false
		}
	}
	return true
}

func (p *loopPair) countMoved(from, n int) {
	if p.flows[from].moved == 0 {
		p.dial = nil
		if from == serverSide {
			p.endpoint.Reached()
		}
	}
	p.flows[from].moved += int64(n)
	c := p.s.at(p.loop.id)
	if from == clientSide {
		c.bytesUp.Add(int64(n))
	} else {
		c.bytesDown.Add(int64(n))
	}
}

// sourceEnded passes the end of a source on to the destination.
func (p *loopPair) sourceEnded(from int) {
	p.because(closedBy(from), 0)
	p.flows[from].finished = true
	if p.ends++; p.ends == 2 {
		p.finish()
		return
	}
	if !p.reset {
		p.endWrite(1 - from)
	}
	p.last = p.loop.now // the half-close timeout begins
	p.schedule()
}

// destinationFailed stops the direction to a peer that has failed. The direction from that peer goes on until the bytes
// that it sent before are delivered. If an endpoint reset the connection before it took or sent a byte, another
// endpoint replaces it and gets the backlog.
func (p *loopPair) destinationFailed(from int, err syscall.Errno) {
	to := 1 - from
	if to == serverSide && (err == unix.ECONNRESET || err == unix.EPIPE) && p.untouched() {
		if alert := p.lastWord(); alert != nil {
			p.tlsFailed(serverSide, alert)
			return
		}
		if p.flows[serverSide].backlog == nil {
			p.redial()
			return
		}
	}
	p.because(failedBy(to), err)
	p.drop(from)
	p.flows[from].finished = true
	p.reset = true
	if p.ends++; p.ends == 2 {
		p.finish()
		return
	}
	p.last = p.loop.now
	p.schedule()
	p.readable[to], p.hangup[to] = true, true
	p.later(to)
}

// later makes the loop continue a direction in its next turn.
func (p *loopPair) later(from int) {
	if f := &p.flows[from]; !f.queued {
		f.queued = true
		p.loop.again = append(p.loop.again, task{p, from})
	}
}

// sourceFailed ends the pair: the bytes read from the failed peer have been written, and nothing can be written to that
// peer.
func (p *loopPair) sourceFailed(from int, err syscall.Errno) {
	if from == serverSide && err == unix.ECONNRESET && p.untouched() {
		p.redial()
		return
	}
	p.because(failedBy(from), err)
	p.reset = true
	p.drop(1 - from)
	p.loop.discard(p.letGo(from)) // nothing can reach the failed peer any more, not even a reset
	p.finish()
}

func (p *loopPair) because(r endReason, err syscall.Errno) {
	if p.reason == notEnded {
		p.reason, p.errno = r, uint16(err)
	}
}

// finish closes the pair. If the pair must be reset, finish first waits until the peers have received what was written
// to them, because a RST discards unsent bytes.
func (p *loopPair) finish() {
	p.state = lingering
	if p.reset {
		p.drop(clientSide)
		p.drop(serverSide)
	}
	p.last = p.loop.now
	p.linger()
}

func (p *loopPair) linger() {
	if !p.isDelivered() {
		if p.loop.now-p.last < deliverTimeout {
			p.loop.wheel.Set(&p.timer, p.loop.now+lingerPoll)
			return
		}
		p.reset = true // the peers do not get the rest
	}
	p.close()
}

// isDelivered reports whether a close loses nothing. Without a reset, the kernel delivers what it has.
func (p *loopPair) isDelivered() bool {
	if p.tls != nil && p.partTLS() {
		return false
	}
	return !p.reset || p.unsentBytes() == 0 // unsentBytes is 0 for closed sockets
}

// cut ends the pair at once, for a reason outside the pair.
func (p *loopPair) cut(why endReason) {
	if p.state == pairClosed {
		return
	}
	p.because(why, 0)
	p.reset = true
	p.close()
}

// drop discards the unwritten bytes of a direction.
func (p *loopPair) drop(from int) {
	f := &p.flows[from]
	for k := f.backlog; k != nil; k = f.backlog {
		f.backlog = k.next
		p.loop.forget(k)
	}
}

// close closes both sockets and releases the pair. If the pair must be reset or never had an endpoint, close sends a
// RST.
func (p *loopPair) close() {
	p.drop(clientSide)
	p.drop(serverSide)
	for side := range p.fd {
		if fd := p.letGo(side); fd >= 0 {
			if p.reset || p.state < relaying {
				sys.ResetOnClose(fd)
			}
			p.loop.discard(fd)
		}
	}
	p.loop.wheel.Clear(&p.timer)
	if p.waiter != nil {
		p.waiter.Cancel() // if the waiter was granted already, the posted function finds that the pair's use is over
		p.waiter = nil
	}
	if p.s.observed() {
		p.tellEnd()
	}
	p.leave()
	if p.tls != nil {
		p.delist()
		p.tls = nil
	}
	p.state, p.serial = pairClosed, 0
	p.loop.release(p.number)
	p.socket.pairEnded(p)
}

// tellEnd reports the end of the pair to the logs.
func (p *loopPair) tellEnd() {
	r := report{client: p.src, listener: p.socket.addr, age: max(p.loop.now-p.began, 0),
		up: p.flows[clientSide].moved, down: p.flows[serverSide].moved, tls: p.clientTLS()}
	switch {
	case p.endpoint == nil:
	case p.joined > 0:
		r.endpoint, r.dialTime = p.endpoint, p.joined-p.began
	case p.reason == unservedFor(RefusedDenied):
		r.endpoint = p.endpoint
	}
	p.s.ended(&r, p.reason, p.cause())
}

// cause returns the error that belongs to reason, or nil.
func (p *loopPair) cause() error {
	switch {
	case p.errno != 0:
		return syscall.Errno(p.errno)
	case p.tls != nil:
		return p.tls.cause
	}
	return nil
}
