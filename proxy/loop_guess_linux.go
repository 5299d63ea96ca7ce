package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file finds out whether clients speak TLS that need not, see AcceptTLS.Plain.

// guess finds out whether the client speaks TLS, without reading from the socket. guess is called again when more has
// arrived.
func (p *loopPair) guess() {
	a := p.s.spec.Load().AcceptTLS // the one in force now: it may be stricter than when the client came
	if a == nil {
		p.servePlain()
		return
	}
	if !a.Plain {
		p.welcomeTLS(a)
		return
	}
	b, whole, err := p.firstBytes()
	if err != 0 {
		p.unserved(&clientError{err})
		return
	}
	switch guessOf(b, whole) {
	case speaksTLS:
		p.welcomeTLS(a)
	case speaksPlain:
		p.servePlain()
	}
}

// firstBytes returns up to guessSize bytes of the client, and whether no more will come.
func (p *loopPair) firstBytes() (b []byte, whole bool, err syscall.Errno) {
	b = p.loop.buf[:0]
	if k := p.flows[clientSide].backlog; k != nil { // behind a PROXY header
		b = append(b, k.buf[k.from:min(k.to, k.from+guessSize)]...)
	}
	if len(b) == guessSize || !p.readable[clientSide] {
		return b, false, 0
	}
	n, err := sys.PeekStream(p.fd[clientSide], p.loop.buf[len(b):guessSize])
	switch err {
	case 0:
		return p.loop.buf[:len(b)+n], n == 0, 0
	case unix.EAGAIN:
		p.readable[clientSide] = false
		return b, false, 0
	}
	return nil, false, err
}

// silent ends the wait for a client's first bytes. A client that has sent a part of a TLS record speaks TLS.
func (p *loopPair) silent() {
	if a := p.s.spec.Load().AcceptTLS; a != nil {
		b, _, _ := p.firstBytes() // an error comes again
		if !a.Plain || len(b) > 0 {
			p.welcomeTLS(a)
			return
		}
	}
	p.servePlain()
}

// servePlain dials for a client that does not speak TLS. Its pair is the same as one without AcceptTLS.
func (p *loopPair) servePlain() {
	p.loop.wheel.Clear(&p.timer)
	p.state = connecting
	p.connect()
}
