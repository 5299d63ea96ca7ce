package proxy

import (
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file has the openings of pairs whose client came over a shared listener: the ClientHello of the client chooses
// the service, and an endpoint may have to be asked for TLS first. See docs/ends.md.

// beginPeek waits for the client's ClientHello. b are bytes of the client that were read already.
func (p *loopPair) beginPeek(b []byte) {
	p.opening.peeking, p.state = true, greeting
	p.loop.wheel.Set(&p.timer, p.loop.now+peekTimeout)
	if len(b) > 0 {
		p.look(b)
	}
}

// peekMore reads once, and looks at all bytes of the client so far.
func (p *loopPair) peekMore() {
	l, o := p.loop, p.opening
	n, errno := sys.RecvStream(p.fd[clientSide], l.buf[:])
	switch {
	case errno == unix.EAGAIN:
		p.readable[clientSide] = false
		return
	case errno != 0:
		p.unserved(&clientError{errno})
		return
	case n == 0 && len(o.heard) > 0:
		p.unserved(errEndedWithin)
		return
	case n == 0:
		p.unserved(&clientError{})
		return
	case n < len(l.buf):
		p.readable[clientSide] = p.hangup[clientSide] || sys.Faults // see loopPair.copy
	}
	b := l.buf[:n]
	if len(o.heard) > 0 {
		o.heard = append(o.heard, b...)
		b = o.heard
	}
	p.look(b)
}

// look looks at b, all bytes of the client so far. They are in the loop's buffer or in the opening.
func (p *loopPair) look(b []byte) {
	o := p.opening
	answer, m, err := o.peek.look(b)
	switch {
	case err != nil:
		p.unserved(err)
	case answer != 0:
		o.heard, o.answer = o.heard[:0], answer
		p.reply()
	case m.whole:
		p.routed(m, b)
	case len(o.heard) == 0:
		o.heard = append(o.heard, b...)
	}
}

// reply answers the client's request, now or when the socket takes the answer. Nothing is read before that.
func (p *loopPair) reply() {
	b := p.loop.buf[:1]
	b[0] = p.opening.answer
	_, errno := sys.SendStream(p.fd[clientSide], b)
	switch errno {
	case 0:
		p.opening.answer = 0
	case unix.EAGAIN: // epoll will report space
	default:
		p.unserved(&clientError{errno})
	}
}

// routed ends the opening of the client's end: m is its first message, and b are all its bytes.
func (p *loopPair) routed(m firstMessage, b []byte) {
	// The routes in force now decide, not those of the moment when the client came.
	s, err := p.socket.tenants.Load().choose(m)
	if err != nil {
		p.unserved(err)
		return
	}
	p.settle(s, b)
}

// settle makes s the service of a pair whose client's end has had its opening. b are the bytes of the client that were
// read behind it.
func (p *loopPair) settle(s *service, b []byte) {
	p.loop.wheel.Clear(&p.timer)
	p.state, p.opening.heard = connecting, nil
	if !p.moveTo(s) {
		p.unserved(noDescriptors(s))
		return
	}
	p.flows[clientSide].backlog, _ = p.loop.keepAll(b)
	if p.admitted() {
		p.openClient()
	}
}

// moveTo makes s the service of a pair that has none of its own yet. moveTo returns false if s gets no descriptors.
func (p *loopPair) moveTo(s *service) bool {
	o, id := p.opening, p.loop.id
	if s != p.s {
		passed := p.s.share.pass(s.share, pairDescriptors)
		p.s.at(id).active.Add(-1)
		s.at(id).active.Add(1)
		p.s, p.limits, o.homeless = s, s.spec.Load().limits(), !passed
	}
	p.enter()
	return !o.homeless
}

// enter counts the pair as a connection of its service.
func (p *loopPair) enter() {
	if p.opening.unrouted {
		p.opening.unrouted = false
		p.s.at(p.loop.id).connections.Add(1)
	}
}

// askTLS is the opening of an endpoint's end whose client has sent sslRequest: the endpoint gets it too, behind the
// PROXY header if there is one, and must accept.
func (p *loopPair) askTLS() {
	spec := p.s.spec.Load()
	b := p.loop.buf[:0]
	if spec.SendProxy != proxyproto.None {
		b = p.appendHeader(b, spec.SendProxy)
	}
	p.state = asking
	p.loop.wheel.Set(&p.timer, p.loop.now+spec.connectTimeout())
	p.askWith(append(b, sslRequest...))
}

// askWith sends b to the endpoint. What cannot be sent now is sent later.
func (p *loopPair) askWith(b []byte) {
	n, errno := sys.SendStream(p.fd[serverSide], b)
	if errno == unix.EAGAIN {
		n, errno = 0, 0
	}
	if errno != 0 {
		p.connectFailed(errno)
		return
	}
	p.opening.unsaid = nil
	if n < len(b) {
		p.opening.unsaid, p.writable[serverSide] = bytes.Clone(b[n:]), false
	}
}

// hearAnswer continues askTLS when the endpoint's socket is ready.
func (p *loopPair) hearAnswer() {
	if len(p.opening.unsaid) > 0 && p.writable[serverSide] {
		p.askWith(p.opening.unsaid)
	}
	if p.state != asking || !p.readable[serverSide] {
		return
	}
	n, errno := sys.RecvStream(p.fd[serverSide], p.loop.buf[:1])
	switch {
	case errno == unix.EAGAIN:
		p.readable[serverSide] = false
		return
	case errno == 0 && n == 0:
		errno = unix.ECONNRESET
	}
	if errno != 0 {
		p.connectFailed(errno)
		return
	}
	if err := takesTLS(p.loop.buf[0]); err != nil {
		p.refusedTLS(err)
		return
	}
	p.established()
}

// refusedTLS gives up an endpoint that does not speak TLS, and dials another one.
func (p *loopPair) refusedTLS(err error) {
	p.loop.discard(p.fd[serverSide])
	p.fd[serverSide] = -1
	p.missed(dialError(p.endpoint, err))
	p.dial.name = nameDial{}
	p.state = connecting
	p.connect()
}
