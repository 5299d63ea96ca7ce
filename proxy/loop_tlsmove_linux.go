package proxy

import (
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file moves the bytes of a pair of which at least one end speaks TLS.

// newcomer is how long a pair with TLS counts as one that has just shaken hands. What the clients of a flood of
// handshakes send themselves is no reason to slow the flood down.
const newcomer = time.Second

// tlsReadsPerTurn is how often a direction of such a pair may read in one turn, each time up to tlsBuffer.
const tlsReadsPerTurn = 2

// readyTLS handles epoll events of a pair that relays.
func (p *loopPair) readyTLS(side int) {
	if e := p.tls.ends[side]; e != nil && p.writable[side] && !p.pushQueue(side) && p.state != relaying {
		return
	}
	for _, from := range [2]int{side, 1 - side} {
		if p.state == relaying && !p.flows[from].queued {
			p.move(from)
		}
	}
}

// moveTLS is move for a pair with TLS.
func (p *loopPair) moveTLS(from int) {
	f, to := &p.flows[from], 1-from
	for n := 0; p.state == relaying && !f.finished; n++ {
		// A peer that makes TLS answer, but reads no answers, is not read from any more: nor may the queue grow.
		if !p.flush(from) || !p.pushQueue(to) || !p.pushQueue(from) || !p.writable[to] || !p.hasInput(from) {
			return
		}
		if n == tlsReadsPerTurn {
			p.later(from)
			return
		}
		if p.loop.now-p.tls.shaken > newcomer {
			p.loop.relays = true
		}
		p.copyTLS(from)
	}
}

// hasInput reports whether a side may have something to read.
func (p *loopPair) hasInput(from int) bool {
	e := p.tls.ends[from]
	return p.readable[from] || e != nil && (e.more || e.held != nil)
}

// copyTLS moves the plaintext of one read.
func (p *loopPair) copyTLS(from int) {
	b := p.loop.useTLS().plain[:]
	n, err := p.readPlain(from, b)
	if n > 0 {
		p.last, p.asked = p.loop.now, from == clientSide
		p.writePlain(from, b[:n])
		return // the next call gets the same error
	}
	e := p.tls.ends[from]
	switch errno, is := err.(syscall.Errno); {
	case err == errLater:
	case is:
		p.sourceFailed(from, errno)
	case err == io.EOF && (e == nil || !e.ended):
		p.sourceEnded(from)
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		p.tls.cause = errTruncated
		p.sourceFailed(from, 0)
	default:
		p.tlsFailed(from, err)
	}
}

// tlsFailed ends the pair because of an error of TLS. The peer gets the alert that crypto/tls has written. With TLS
// 1.3, a server tells only now that it does not accept the client's certificate.
func (p *loopPair) tlsFailed(from int, err error) {
	e := p.tls.ends[from]
	e.endSent, e.fin = true, true // behind the alert
	e.finish()
	silent := from == serverSide && p.flows[serverSide].moved == 0
	if denied := denialOf(p.endpoint, p.tls.denies, err); silent && denied != nil {
		p.reset = true
		p.denied(denied)
		p.finish()
		return
	}
	p.tls.cause = err
	p.because(failedBy(from), 0)
	p.reset = true
	if silent {
		p.s.notReached(p.endpoint, endpointHandshakeError(p.endpoint, err), "endpoint ended the connection by TLS")
	}
	p.finish()
}

// denied records that the endpoint has denied the connection. What has failed before has failed because of that.
func (p *loopPair) denied(d *deniedError) {
	p.tls.cause = d.why
	p.reason, p.errno = unservedFor(RefusedDenied), 0
	p.s.denied(p.src, d)
}

// lastWord reads what an endpoint that may deny has sent before its socket failed. It returns the alert by which the
// endpoint has denied the connection, or nil. Bytes that the endpoint has sent go to the backlog.
func (p *loopPair) lastWord() (alert error) {
	if p.tls == nil || !p.tls.denies {
		return nil
	}
	b := p.loop.tls.plain[:]
	n, err := 0, error(errLater)
	for i := 0; i < lastReads && n == 0 && err == errLater; i++ {
		p.readable[serverSide] = true
		n, err = p.readPlain(serverSide, b)
	}
	p.flows[serverSide].backlog, _ = p.loop.keepAll(b[:n])
	if lb.Denial(err) == nil {
		return nil
	}
	return err
}

// lastReads is how often lastWord reads. One read suffices, unless it is short.
const lastReads = 16

// readPlain reads plaintext from a side into b. An error comes without bytes, or will come again.
func (p *loopPair) readPlain(from int, b []byte) (n int, err error) {
	e := p.tls.ends[from]
	if e == nil {
		n, errno := sys.RecvStream(p.fd[from], b)
		switch {
		case errno == unix.EAGAIN:
			p.readable[from] = false
			return 0, errLater
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		case n < len(b):
			p.readable[from] = p.hangup[from] || sys.Faults // see copy
		}
		return n, nil
	}
	// One read of the socket suffices: with what conn has of a record, that is as much plaintext as fits into b.
	e.unhold()
	e.full = false
	for len(b)-n >= maxRecord && err == nil && e.queue == nil {
		var m int
		m, err = e.conn.Read(b[n:])
		n += m
		e.push() // of the answers to messages that ask for one
		if n > 0 && err == nil && e.isReadUp() {
			e.more = false
			return n, nil
		}
	}
	e.more = err != errLater
	e.hold()
	return n, err
}

// writePlain writes the plaintext b of a side to the other side.
func (p *loopPair) writePlain(from int, b []byte) {
	to := 1 - from
	e := p.tls.ends[to]
	if e == nil {
		m, err := sys.SendStream(p.fd[to], b)
		if err != 0 && err != unix.EAGAIN {
			p.flows[from].backlog, _ = p.loop.keepAll(b)
			p.destinationFailed(from, err)
			return
		}
		if err != 0 {
			m = 0
		}
		p.countMoved(from, m)
		if m < len(b) {
			p.writable[to] = false
			p.flows[from].backlog, _ = p.loop.keepAll(b[m:])
		}
		return
	}
	if err := e.seal(b); err != nil {
		p.flows[from].backlog, _ = p.loop.keepAll(b) // for another endpoint, if this one has taken nothing
		p.sealFailed(from, err)
		return
	}
	p.countMoved(from, len(b))
}

// seal encrypts b and sends it. An error of the socket is a syscall.Errno.
func (e *tlsEnd) seal(b []byte) error {
	err := seal(e.conn, b, e.pair.flows[1-e.side].moved)
	e.push()
	if e.failed != 0 {
		return e.failed
	}
	return err
}

// sealFailed stops the direction of a side after the other side did not take its bytes.
func (p *loopPair) sealFailed(from int, err error) {
	errno, is := err.(syscall.Errno)
	if !is {
		p.tls.cause = err
	}
	p.destinationFailed(from, errno)
}

// flushTLS is flush if the destination speaks TLS.
func (p *loopPair) flushTLS(from int) bool {
	f, e := &p.flows[from], p.tls.ends[1-from]
	for f.backlog != nil {
		if !p.pushQueue(1-from) || !p.writable[1-from] {
			return false
		}
		k := f.backlog
		if err := e.seal(k.buf[k.from:k.to]); err != nil {
			p.sealFailed(from, err)
			return false
		}
		f.backlog = k.next
		p.last = p.loop.now
		if n := p.withoutOpening(from, k.to-k.from); n > 0 {
			p.countMoved(from, n)
		}
		p.loop.forget(k)
	}
	return true
}

// pushQueue sends what waits in the queue of a side, and reports whether none of it is left.
func (p *loopPair) pushQueue(side int) bool {
	e := p.tls.ends[side]
	if e == nil {
		return true
	}
	for e.queue != nil {
		if !p.writable[side] {
			return false
		}
		k := e.queue
		n, err := sys.SendStream(e.fd, k.buf[k.from:k.to])
		switch err {
		case 0:
			p.last = p.loop.now
			if k.from += n; k.from == k.to {
				e.queue = k.next
				p.loop.forget(k)
			}
		case unix.EAGAIN:
			p.writable[side] = false
			return false
		default:
			p.queueFailed(side, err)
			return false
		}
	}
	e.finish()
	return true
}

// queueFailed handles that a side does not take what waits for it.
func (p *loopPair) queueFailed(side int, err syscall.Errno) {
	e := p.tls.ends[side]
	e.drop()
	e.failed, e.fin = err, false
	if from := 1 - side; p.state == relaying && !p.flows[from].finished {
		p.destinationFailed(from, err)
	} else {
		p.because(failedBy(side), err)
		p.reset = true
	}
}

// endWrite tells the peer of a side that nothing more comes.
func (p *loopPair) endWrite(side int) {
	if p.tls != nil && p.tls.ends[side] != nil {
		p.tls.ends[side].sayEnd()
		return
	}
	if sys.ShutdownWrite(p.fd[side]) != 0 {
		p.reset = true // the destination has gone; its own direction will report that
	}
}

// isQueued reports whether something that TLS has encrypted waits for a side.
func (p *loopPair) isQueued() bool {
	if p.tls == nil {
		return false
	}
	for _, e := range p.tls.ends {
		if e != nil && e.queue != nil {
			return true
		}
	}
	return false
}

// partTLS sends what still waits for the sides that speak TLS, before a pair is closed. Without a reset, it also says
// the end of these sides. It reports whether something waits even then.
func (p *loopPair) partTLS() bool {
	for side, e := range p.tls.ends {
		if e != nil {
			if !p.reset {
				e.sayEnd()
			}
			p.pushQueue(side)
		}
	}
	return p.isQueued()
}

// isStuckTLS reports whether bytes wait for the destination of a direction, or in the source's end.
func (p *loopPair) isStuckTLS(from int) bool {
	source, destination := p.tls.ends[from], p.tls.ends[1-from]
	return destination != nil && destination.queue != nil || source != nil && source.held != nil
}

// clientTLS returns what the TLS handshake with the client has shown, or nil if there was none.
func (p *loopPair) clientTLS() *TLSPeer {
	switch {
	case p.tls == nil, p.isShaking(clientSide):
		return nil
	case p.tls.ends[clientSide] == nil:
		return p.tls.shown
	}
	state := p.tls.ends[clientSide].conn.ConnectionState()
	if !state.HandshakeComplete { // what the client has shown was not verified
		return p.tls.shown
	}
	return tlsPeerOf(state)
}

// withFirstPlain is withFirstBytes for a client that speaks TLS.
func (p *loopPair) withFirstPlain(header []byte) ([]byte, syscall.Errno) {
	b := p.loop.tls.plain[:]
	n, _ := p.readPlain(clientSide, b) // an error comes again
	if n == 0 {
		return header, 0
	}
	p.last, p.asked = p.loop.now, true
	return append(header[:len(header):len(header)], b[:n]...), 0
}

// desertedTLS is deserted for a client that speaks TLS. It keeps the first bytes of a client that has sent some.
func (p *loopPair) desertedTLS() error {
	b := p.loop.tls.plain[:]
	n, err := p.readPlain(clientSide, b)
	if n > 0 {
		p.flows[clientSide].backlog, _ = p.loop.keepAll(b[:n])
		return nil
	}
	if errno, is := err.(syscall.Errno); is {
		return &clientError{errno}
	}
	if err == errLater {
		return nil
	}
	return &clientError{}
}
