package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file has the handshakes of TLS. One of the engine's shakers does a handshake. Meanwhile the loop only passes on
// that the socket is ready. Only the loop closes the socket, after the handshake is over.

// A handshake is one that is under way.
type handshake struct {
	end     *tlsEnd
	loop    *eventLoop
	steps   *steps      // woken when the socket may be ready, or the handshake is given up
	givenUp atomic.Bool // the pair does not wait for the result
	prefix  []byte      // what is sent in front of the first record
	buf     *[maxRecord]byte
	heard   bool          // the peer has sent something
	began   time.Duration // by the loop's clock
	changes uint64        // of identityIndex.changed, before the handshake with a client
	unsent  syscall.Errno // an endpoint has reset the connection before it took all; see handshake.write
}

var errGivenUp = errors.New("given up")

var handshakeBuffers = sync.Pool{New: func() any { return new([maxRecord]byte) }}

// shakeHands makes a shaker do the handshake of one side. first are bytes of the peer that were read already, and
// prefix is what the peer gets in front of the first record. connect makes the tls.Conn; the shaker calls it. The
// method handshaken of the pair gets the result.
func (p *loopPair) shakeHands(side int, first, prefix []byte, connect func(e *tlsEnd) (*tls.Conn, error)) {
	e := &tlsEnd{fd: p.fd[side], side: side, ahead: first}
	h := &handshake{end: e, loop: p.loop, steps: &steps{}, prefix: prefix, heard: len(first) > 0, began: p.loop.now}
	e.shake = h
	if p.tls == nil {
		p.tls = &pairTLS{}
	}
	p.tls.ends[side] = e
	g := p.thisUse() // the shaker must not read p, which may serve another client by then
	h.steps.do = func() {
		err := h.run(connect)
		h.loop.post(func() {
			defer handshakeBuffers.Put(h.buf)
			if h.givenUp.Load() || g.isOver() {
				sys.ResetOnClose(e.fd)
				sys.Close(e.fd)
				return
			}
			p.handshaken(e, err)
		})
	}
	p.socket.engine.shakers[side].start(h.steps)
}

// run does the handshake. If it fails, run gives a client time to read the alert.
func (h *handshake) run(connect func(e *tlsEnd) (*tls.Conn, error)) (err error) {
	h.buf = handshakeBuffers.Get().(*[maxRecord]byte)
	if h.givenUp.Load() {
		err = errGivenUp
	} else if h.end.conn, err = connect(h.end); err == nil {
		err = h.end.conn.Handshake()
	}
	if err == nil && h.unsent != 0 { // the endpoint has not got the end of the handshake, so it sends no data
		if _, err = h.end.conn.Read(make([]byte, 1)); err == nil {
			err = h.unsent
		}
	}
	if err != nil && h.heard && h.end.side == clientSide && !h.givenUp.Load() {
		h.part()
	}
	return err
}

// wait waits until the socket may be ready.
func (h *handshake) wait() error {
	h.steps.pause()
	if h.givenUp.Load() {
		return errGivenUp
	}
	return nil
}

// wake makes the handshake look at the socket again.
func (h *handshake) wake() { h.steps.wake() }

// giveUp ends the handshake. The loop closes the socket when the handshake is over.
func (h *handshake) giveUp() {
	h.givenUp.Store(true)
	h.loop.unwatch(h.end.fd)
	h.wake()
}

// readAhead is tlsEnd.readAhead during the handshake.
func (h *handshake) readAhead() error {
	for {
		n, err := sys.RecvStream(h.end.fd, h.buf[:])
		switch {
		case err == unix.EAGAIN:
			if err := h.wait(); err != nil {
				return err
			}
		case err != 0:
			return err
		case n == 0 && h.unsent != 0: // the system reports a reset once
			return h.unsent
		case n == 0:
			h.end.ended = true
			return io.EOF
		default:
			h.end.ahead, h.heard = h.buf[:n], true
			return nil
		}
	}
}

// write writes all of b. If an endpoint has reset the connection, write reports no error: the next read returns what
// the endpoint has sent before, such as an alert, and then the error.
func (h *handshake) write(b []byte) (int, error) {
	if h.prefix != nil {
		all := append(h.prefix, b...)
		h.prefix = nil
		if _, err := h.write(all); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	for rest := b; len(rest) > 0; {
		n, err := sys.SendStream(h.end.fd, rest)
		switch err {
		case 0:
			rest = rest[n:]
		case unix.EAGAIN:
			if err := h.wait(); err != nil {
				return 0, err
			}
		default:
			if h.end.side == serverSide && (err == unix.ECONNRESET || err == unix.EPIPE) {
				h.unsent = unix.ECONNRESET
				return len(b), nil
			}
			return 0, err
		}
	}
	return len(b), nil
}

// partTimeout is how long a peer may take to read the alert of a handshake that has failed.
const partTimeout = time.Second

// part ends the sending side, and waits until the peer has ended its side too. Otherwise a close would send a RST if
// the peer has sent more, and the RST would destroy the alert.
func (h *handshake) part() {
	if sys.ShutdownWrite(h.end.fd) != 0 {
		return
	}
	began := time.Now()
	defer time.AfterFunc(partTimeout, h.wake).Stop()
	for !h.givenUp.Load() && time.Since(began) < partTimeout {
		n, err := sys.RecvStream(h.end.fd, h.buf[:])
		if err == unix.EAGAIN {
			h.steps.pause()
		} else if err != 0 || n == 0 {
			return
		}
	}
}

// isShaking reports whether the handshake of a side is under way.
func (p *loopPair) isShaking(side int) bool {
	return p.tls != nil && p.tls.ends[side] != nil && p.tls.ends[side].shake != nil
}

// letGo takes the socket of a side from the pair. It returns -1 if the caller must not close the socket, because a
// handshake still uses it.
func (p *loopPair) letGo(side int) (fd int32) {
	fd, p.fd[side] = p.fd[side], -1
	if p.tls == nil || p.tls.ends[side] == nil {
		return fd
	}
	e := p.tls.ends[side]
	if side == clientSide && p.s.observed() {
		p.tls.shown = p.clientTLS()
	}
	p.tls.ends[side] = nil
	if e.shake != nil {
		e.shake.giveUp()
		return -1
	}
	e.drop()
	for k := e.held; k != nil; k = e.held {
		e.held = k.next
		p.loop.forget(k)
	}
	return fd
}

// handshaken handles the result of a handshake.
func (p *loopPair) handshaken(e *tlsEnd, err error) {
	h := e.shake
	if e.side == serverSide {
		p.s.at(p.loop.id).handshakes.count(e.conn, p.loop.now-h.began, err)
	}
	e.shake = nil
	if err == nil {
		e.kit, e.pair, e.more = p.loop.useTLS(), p, true
		p.tls.shaken = p.loop.now
		e.hold()
		p.readable[e.side], p.writable[e.side] = true, true
	}
	switch {
	case e.side == clientSide && err == nil:
		p.loop.wheel.Clear(&p.timer)
		p.state = connecting
		if err = p.identify(h.changes); err != nil {
			p.unserved(err)
			return
		}
		p.connect()
	case e.side == clientSide:
		p.unserved(whyNoHandshake(e.conn, err, h.heard))
	case err == nil:
		p.joinEndpoint()
	default:
		p.handshakeFailed(err)
	}
}

// whyNoHandshake returns why a client is not served whose handshake over c has failed with err. heard says whether the
// client has sent anything.
func whyNoHandshake(c *tls.Conn, err error, heard bool) error {
	if e := forbiddenIn(c, err); e != nil {
		return e
	}
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return &clientError{errno}
	case !heard && errors.Is(err, io.EOF):
		return &clientError{} // such as the check of a load balancer that only connects
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the client ended within it")
	}
	return clientHandshakeError(err)
}

// welcomeTLS begins the handshake with the client.
func (p *loopPair) welcomeTLS(a *AcceptTLS) {
	p.state = securing
	p.loop.wheel.Set(&p.timer, p.loop.now+a.timeout())
	var first []byte
	for k := p.flows[clientSide].backlog; k != nil; k = k.next { // what was read in the opening before
		first = append(first, k.buf[k.from:k.to]...)
	}
	p.drop(clientSide)
	changes := p.s.identities.changed()
	p.shakeHands(clientSide, first, nil, func(e *tlsEnd) (*tls.Conn, error) { return tls.Server(e, a.Config()), nil })
	p.tls.ends[clientSide].shake.changes = changes
}

// insecure ends a client whose handshake has not ended in time.
func (p *loopPair) insecure() {
	p.unserved(clientHandshakeError(fmt.Errorf("it was not over within %v", p.loop.now-p.began)))
}

// secureEndpoint begins the handshake with the endpoint. If the endpoint gets a PROXY header ahead of it, the header
// leaves together with the first record.
func (p *loopPair) secureEndpoint(spec *Service) {
	var header []byte
	t, to := spec.EndpointTLS, p.endpoint.Endpoint
	if v := spec.SendProxy; v != proxyproto.None && !t.HeaderInside {
		header = p.appendHeader(nil, v)
	}
	p.loop.wheel.Set(&p.timer, p.loop.now+spec.connectTimeout())
	p.shakeHands(serverSide, nil, header, func(e *tlsEnd) (*tls.Conn, error) {
		config, err := t.Config(to)
		if err != nil {
			return nil, err
		}
		return tls.Client(e, config), nil
	})
	p.tls.denies, p.tls.inside = t.Denies, t.HeaderInside
}

// tooSlow ends a handshake with the endpoint that was not over in time.
func (p *loopPair) tooSlow() {
	p.s.at(p.loop.id).handshakes.count(nil, 0, os.ErrDeadlineExceeded)
	p.handshakeFailed(os.ErrDeadlineExceeded)
}

// handshakeFailed records that the endpoint was not reached, and dials the next one. A client that the endpoint has
// denied gets no other one.
func (p *loopPair) handshakeFailed(err error) {
	denied := denialOf(p.endpoint, p.tls.denies, err)
	if fd := p.letGo(serverSide); fd >= 0 {
		p.loop.discard(fd)
	}
	if denied != nil {
		p.denied(denied)
		p.close()
		return
	}
	p.missed(endpointHandshakeError(p.endpoint, err))
	p.dial.name = nameDial{}
	p.connect()
}
