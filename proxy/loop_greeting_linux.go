package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file has the openings of the two ends of a pair, see docs/ends.md.

// An opening holds what is said on one end of a pair before the client's bytes.
type opening struct {
	heard []byte          // part of the client's header that has arrived; empty once the header is complete
	dest  netip.AddrPort  // the address that the client has dialled, from the header; invalid if it named none
	tlvs  proxyproto.TLVs // TLVs of the client's header, to be passed on
	rest  int             // bytes at the front of the client's backlog that belong to the header for the endpoint

	peek     peek   // progress of a client of a shared listener
	answer   byte   // still to be sent to the client; zero: nothing
	peeking  bool   // whether a ClientHello is expected, or else a header
	unrouted bool   // whether the pair waits for its service, and no service has counted it yet
	homeless bool   // whether no service holds descriptors for the pair
	unsaid   []byte // what is still to be sent to an endpoint before its answer to sslRequest
}

// greet begins the opening of a client's end: the client must send a PROXY header, and then, if routed, a ClientHello.
func (p *loopPair) greet(a *AcceptProxy, routed bool) {
	p.opening, p.state = &opening{unrouted: routed}, greeting
	if !a.trusts(p.src.Addr()) { // the service has changed since the connection was accepted
		p.unserved(&strangerError{p.src.Addr()})
		return
	}
	if p.watchClient() {
		p.loop.wheel.Set(&p.timer, p.loop.now+a.timeout())
	}
}

// hear reads the client's header or ClientHello. hear is called when bytes have arrived.
func (p *loopPair) hear() {
	if p.opening.answer != 0 {
		p.reply()
	}
	for p.readable[clientSide] && p.state == greeting && p.opening.answer == 0 {
		if p.opening.peeking {
			p.peekMore()
			continue
		}
		b, err := p.hearMore()
		if err == unix.EAGAIN {
			p.readable[clientSide] = false
			return
		}
		if err != nil {
			p.unserved(err)
			return
		}
		h, n, err := proxyproto.Parse(b)
		switch {
		case err != nil:
			p.unserved(fmt.Errorf("%w: %w", errProxyHeader, err))
		case n == 0:
			p.opening.heard = append(p.opening.heard[:0], b...)
		default:
			p.introduced(&h, b[n:])
		}
	}
}

// hearMore reads once, and returns all bytes of the client so far, in the loop's buffer. If the client has gone, the
// error is a clientError. A client that ends within its header has sent a bad one.
func (p *loopPair) hearMore() ([]byte, error) {
	l, had := p.loop, copy(p.loop.buf[:], p.opening.heard)
	n, errno := sys.RecvStream(p.fd[clientSide], l.buf[had:])
	switch {
	case errno == unix.EAGAIN:
		return nil, errno
	case errno != 0:
		return nil, &clientError{errno}
	case n == 0 && had > 0:
		return nil, fmt.Errorf("%w: the client ended within the header", errProxyHeader)
	case n == 0:
		return nil, &clientError{} // such as the check of a proxy that only connects
	}
	if n < len(l.buf)-had {
		p.readable[clientSide] = p.hangup[clientSide] || sys.Faults // see loopPair.copy
	}
	return l.buf[:had+n], nil
}

// introduced ends the opening of a client's end. rest are the bytes behind the header.
func (p *loopPair) introduced(h *proxyproto.Header, rest []byte) {
	p.loop.wheel.Clear(&p.timer)
	p.opening.heard = nil
	if h.Src.IsValid() {
		p.src, p.opening.dest = h.Src, h.Dst
	}
	if p.s.spec.Load().SendProxy == proxyproto.V2 {
		p.opening.tlvs = slices.Clone(h.TLVs)
	}
	t, s := p.socket.tenants.Load(), p.s
	if t.routes != nil {
		p.beginPeek(rest)
		return
	}
	if p.opening.unrouted { // a reload has ended the sharing meanwhile
		s = t.service
	}
	p.settle(s, rest)
}

// unheard ends a client whose header or ClientHello has not come in time.
func (p *loopPair) unheard() {
	if p.opening.peeking {
		p.unserved(errUnroutable)
		return
	}
	p.unserved(fmt.Errorf("%w: no header came within %v", errProxyHeader, p.loop.now-p.began))
}

// announce is the opening of an endpoint's end: it sends the PROXY header with the client's bytes that are there
// already. What cannot be sent goes to the backlog.
func (p *loopPair) announce(v proxyproto.Version) {
	l := p.loop
	header := p.appendHeader(l.buf[:0], v)
	all, err := p.withFirstBytes(header)
	if err != 0 {
		p.sourceFailed(clientSide, err)
		return
	}
	n, err := sys.SendStream(p.fd[serverSide], all)
	if err == unix.EAGAIN {
		n, err = 0, 0
	}
	if err != 0 { // another endpoint gets a header of its own
		p.keepFirst(all[len(header):])
		p.destinationFailed(clientSide, err)
		return
	}
	if sent := n - len(header); sent > 0 {
		p.countMoved(clientSide, sent)
	}
	if n < len(header) {
		if p.opening == nil {
			p.opening = &opening{}
		}
		p.opening.rest = len(header) - n
	}
	if n < len(all) {
		p.writable[serverSide] = false
		p.keepFirst(all[n:])
	}
}

// announceInside is announce for an endpoint that gets the header inside TLS.
func (p *loopPair) announceInside(v proxyproto.Version) {
	header := p.appendHeader(nil, v)
	p.keepFirst(header)
	if p.opening == nil {
		p.opening = &opening{}
	}
	p.opening.rest = len(header)
}

// appendHeader appends the PROXY header for the endpoint to b.
func (p *loopPair) appendHeader(b []byte, v proxyproto.Version) []byte {
	about := hop{client: p.src, server: p.dialled(), id: p.serial<<8 | uint64(uint8(p.loop.id)), tls: p.clientTLS()}
	if p.opening != nil {
		about.tlvs = p.opening.tlvs
	}
	return appendProxyHeader(b, v, &about)
}

// withFirstBytes appends to header the bytes that the client has sent already, as far as they fit into the loop's
// buffer.
func (p *loopPair) withFirstBytes(header []byte) (all []byte, err syscall.Errno) {
	l, f := p.loop, &p.flows[clientSide]
	if k := f.backlog; k != nil {
		if len(header)+k.to-k.from > len(l.buf) || k.next != nil {
			return header, 0
		}
		f.backlog = nil
		all = append(header, k.buf[k.from:k.to]...)
		l.forget(k)
		return all, 0
	}
	if !p.readable[clientSide] || f.finished {
		return header, 0
	}
	if p.tls != nil && p.tls.ends[clientSide] != nil {
		return p.withFirstPlain(header)
	}
	n, err := sys.RecvStream(p.fd[clientSide], l.buf[len(header):])
	switch {
	case err == unix.EAGAIN:
		p.readable[clientSide] = false
		return header, 0
	case err != 0:
		return header, err
	case n == 0:
		return header, 0 // the next read finds the end again
	case n < len(l.buf)-len(header):
		p.readable[clientSide] = p.hangup[clientSide] || sys.Faults // see loopPair.copy
	}
	p.last, p.asked = l.now, true
	return l.buf[:len(header)+n], 0
}

// keepFirst puts b in front of the client's backlog.
func (p *loopPair) keepFirst(b []byte) {
	if len(b) > 0 {
		first, last := p.loop.keepAll(b)
		last.next = p.flows[clientSide].backlog
		p.flows[clientSide].backlog = first
	}
}

// unannounce removes from the backlog what is left of a header for an endpoint that is given up.
func (p *loopPair) unannounce() {
	if p.opening == nil || p.opening.rest == 0 {
		return
	}
	k := p.flows[clientSide].backlog
	if k.from += p.opening.rest; k.from == k.to {
		p.flows[clientSide].backlog = k.next
		p.loop.forget(k)
	}
	p.opening.rest = 0
}

// withoutOpening returns how many of n bytes that left the backlog of a side came from that side. The others belong to
// the opening.
func (p *loopPair) withoutOpening(from, n int) int {
	o := p.opening
	if o == nil || o.rest == 0 || from != clientSide {
		return n
	}
	header := min(n, o.rest)
	o.rest -= header
	return n - header
}

// dialled returns the address that the client has dialled.
func (p *loopPair) dialled() netip.AddrPort {
	if o := p.opening; o != nil && o.dest.IsValid() {
		return o.dest
	}
	if at := p.socket.addr.AddrPort; !at.Addr().IsUnspecified() {
		return at
	}
	sa, err := sys.SocketName(unix.SYS_GETSOCKNAME, p.fd[clientSide])
	if err != 0 {
		return p.socket.addr.AddrPort
	}
	at := sys.AddrPort(&sa)
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
