package proxy

import (
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// dialing records the endpoints that a pair has failed to reach.
type dialing struct {
	tried lb.Tried
	errs  *multierror.Error

	name nameDial // progress through the addresses of the current endpoint's host name, if it has one
}

// connect dials the next endpoint, or ends the pair if there is none.
func (p *loopPair) connect() {
	for {
		var tried lb.Tried
		if p.dial != nil {
			tried = p.dial.tried
		}
		m, err := (*lb.Member)(nil), lb.ErrMissingEndpoints
		if tried.Len() < maxDials {
			m, err = p.s.pick(p.src, tried)
		}
		if err == lb.ErrFull {
			if err = p.waitForRoom(tried); err == nil {
				return
			}
		}
		if err != nil {
			p.unserved(err)
			return
		}
		if p.reach(m) {
			return
		}
	}
}

// reach dials m, and reports whether the dial has begun. If the dial fails at once, reach records the failure.
func (p *loopPair) reach(m *lb.Member) bool {
	p.endpoint = m
	if m.Host != "" {
		p.resolve()
		return true
	}
	spec := p.s.spec.Load()
	err := spec.unfit(m, p.src.Addr(), m.Addr.Addr())
	if err == nil {
		errno := p.connectTo(m.At(), spec.connectTimeout())
		if errno == 0 {
			return true
		}
		err = p.dialError(errno)
	}
	p.missed(err)
	return false
}

// waitForRoom puts the pair into the balancer's queue until an endpoint has capacity for it.
func (p *loopPair) waitForRoom(tried lb.Tried) error {
	if gone := p.deserted(); gone != nil {
		return gone
	}
	p.loop.wheel.Clear(&p.timer)
	l, g := p.loop, p.thisUse() // a posted function must not read p.loop: p may serve another client by then
	w, err := p.s.wait(p.src, tried, func(m *lb.Member, err error) {
		l.post(func() {
			switch {
			case !g.isOver():
				p.granted(m, err)
			case m != nil:
				m.Done() // the client has left, so the endpoint is not used
			}
		})
	})
	p.waiter = w
	return err
}

// granted handles the end of the wait: m is the endpoint, or err says why there is none.
func (p *loopPair) granted(m *lb.Member, err error) {
	p.waiter = nil
	switch {
	case err != nil:
		p.unserved(err)
	case p.socket.cutting.Err() != nil:
		m.Done()
		p.cut(endCut)
	case !p.reach(m):
		p.connect()
	}
}

// deserted returns a clientError if the client has finished sending without sending a byte; otherwise nil. Such a
// client may still want an answer, but Lictor does not keep it in a queue.
func (p *loopPair) deserted() error {
	if !p.hangup[clientSide] || p.flows[clientSide].backlog != nil {
		return nil
	}
	if p.tls != nil && p.tls.ends[clientSide] != nil {
		return p.desertedTLS()
	}
	n, err := sys.Peek(int(p.fd[clientSide]))
	if n > 0 || err == unix.EAGAIN {
		return nil
	}
	return &clientError{err}
}

// connectTo starts to connect to addr. Epoll or the timer reports the result.
func (p *loopPair) connectTo(addr lb.Addr, timeout time.Duration) syscall.Errno {
	fd, err := startConnect(p.s.spec.Load().source(p.src.Addr()), addr)
	if err != 0 {
		return err
	}
	p.fd[serverSide] = fd
	p.readable[serverSide], p.writable[serverSide], p.hangup[serverSide] = false, false, false
	if err := p.loop.add(fd, pairEvents, p.number, serverSide); err != 0 {
		p.fd[serverSide] = -1
		sys.Close(fd)
		return err
	}
	p.last = p.loop.now
	p.loop.wheel.Set(&p.timer, p.loop.now+timeout)
	return 0
}

// startConnect starts to connect a socket to addr, and sets the options that a relay needs.
func startConnect(from netip.Addr, addr lb.Addr) (int32, syscall.Errno) {
	if addr.Path != "" {
		return sys.StartConnectUnix(addr.Path)
	}
	at := addr.AddrPort
	fd, err := sys.StartConnect(from, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), unix.SOCK_STREAM)
	if err != 0 && err != unix.EINPROGRESS {
		return -1, err
	}
	sys.SetOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	sys.SetOption(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	return fd, 0
}

// connected handles the result of a connect to the endpoint.
func (p *loopPair) connected() {
	if p.hangup[serverSide] { // without a hangup the connect has succeeded
		if err := sys.SocketError(p.fd[serverSide]); err != 0 {
			p.connectFailed(err)
			return
		}
	}
	if p.endpoint.Addr.Port() >= p.socket.engine.ephemeral && toItself(p.fd[serverSide]) {
		sys.ResetOnClose(p.fd[serverSide])
		p.connectFailed(unix.ECONNREFUSED)
		return
	}
	if p.opening != nil && p.opening.peek.asked {
		p.askTLS()
		return
	}
	p.established()
}

// established begins to relay: the endpoint was reached.
func (p *loopPair) established() {
	if p.s.isCutOff(p.endpoint) { // the endpoint has left while it was dialed
		p.abandon()
		return
	}
	if spec := p.s.spec.Load(); spec.EndpointTLS != nil {
		p.secureEndpoint(spec)
		return
	}
	p.joinEndpoint()
}

// joinEndpoint begins to relay.
func (p *loopPair) joinEndpoint() {
	p.s.accepted(p.endpoint, p.tls != nil && p.tls.denies)
	p.endpoint.Dialed(p.loop.now - p.last)
	p.addressReached()
	announced := p.state == asking || p.tls != nil && p.tls.ends[serverSide] != nil
	p.state = relaying
	p.kept = p.isUnix(serverSide) // the kernel tells at once when a Unix peer is gone
	p.loop.join(p)
	p.writable[clientSide] = true // a new socket has free space
	p.last, p.joined = p.loop.now, p.loop.now
	p.s.at(p.loop.id).dials.observe(p.loop.now - p.began)
	if p.s.log.IsDebug() {
		p.s.log.Debug("connected", "client", clientName(p.src), "endpoint", p.endpoint.Address(), "took",
			p.loop.now-p.began)
	}
	p.schedule()
	switch v := p.s.spec.Load().SendProxy; {
	case v == proxyproto.None:
	case !announced:
		p.announce(v)
	case p.tls != nil && p.tls.inside:
		p.announceInside(v)
	}
	if p.state == relaying {
		p.move(clientSide)
	}
	if p.state == relaying {
		p.move(serverSide)
	}
}

// abandon gives up the current endpoint, which is not at fault, and dials another one.
func (p *loopPair) abandon() {
	sys.ResetOnClose(p.fd[serverSide])
	sys.Close(p.fd[serverSide])
	p.fd[serverSide], p.state = -1, connecting
	p.loop.wheel.Clear(&p.timer)
	if p.dial != nil {
		p.dial.name = nameDial{}
	}
	p.leave()
	p.connect()
}

// untouched reports whether the endpoint has taken none of the client's bytes and has sent none, so that another
// endpoint can serve the client instead. All bytes of the client are then still in the kernel or in the backlog.
func (p *loopPair) untouched() bool {
	up, down := &p.flows[clientSide], &p.flows[serverSide]
	return up.moved == 0 && !up.finished && !down.finished && p.hungUpOn()
}

// hungUpOn reports whether the connection is young and nothing came from the endpoint.
func (p *loopPair) hungUpOn() bool {
	return p.flows[serverSide].moved == 0 && p.loop.now-p.began < earlyReset
}

// redial dials another endpoint after the current one has accepted the connection and reset it. The dial begins only
// after the loop's current events, because one of them may belong to the socket that redial closes.
func (p *loopPair) redial() {
	p.state = connecting
	p.kept, p.joined = false, 0
	p.unannounce()
	p.loop.discard(p.letGo(serverSide))
	p.loop.wheel.Clear(&p.timer)
	p.missed(p.dialError(unix.ECONNRESET))
	p.dial.name = nameDial{}
	g := p.thisUse()
	p.loop.post(func() {
		if !g.isOver() { // if the use is over, the client has gone
			p.connect()
		}
	})
}

// connectFailed records the failure and dials the next endpoint.
func (p *loopPair) connectFailed(err syscall.Errno) {
	p.state = connecting
	if fd := p.fd[serverSide]; fd >= 0 {
		p.loop.discard(fd)
		p.fd[serverSide] = -1
	}
	if p.endpoint.Host != "" {
		p.addressMissed(err)
		return
	}
	p.missed(p.dialError(err))
	p.connect()
}

func (p *loopPair) dialError(err syscall.Errno) error {
	return dialError(p.endpoint, os.NewSyscallError("connect", err))
}

// toItself reports whether a socket is connected to itself. A dial to an ephemeral port of this host, at which nothing
// listens, may get the same port from the kernel. TCP calls the result a simultaneous open (RFC 9293, 3.5).
func toItself(fd int32) bool {
	local, err := sys.SocketName(unix.SYS_GETSOCKNAME, fd)
	if err != 0 {
		return false
	}
	peer, err := sys.SocketName(unix.SYS_GETPEERNAME, fd)
	return err == 0 && local == peer
}

// missed records that the endpoint was not reached.
func (p *loopPair) missed(err error) {
	if p.dial == nil {
		p.dial = &dialing{}
	}
	p.s.dialFailed(p.endpoint, err)
	p.dial.errs = multierror.Append(p.dial.errs, err)
	p.dial.tried.Add(p.endpoint.ID)
	p.leave()
}

// unserved resets the client, because of err or the failed dials before.
func (p *loopPair) unserved(err error) {
	if p.dial != nil {
		err = whyNone(p.dial.errs, err)
	}
	why, cause := endOf(err)
	errno, is := cause.(syscall.Errno)
	if cause != nil && !is && p.tls != nil {
		p.tls.cause = cause
	}
	if e := identityErrorIn(err); e != nil {
		p.tls.shown = e.peer
	}
	p.because(why, errno)
	if why.isUnserved() {
		p.s.unserved(p.src, err)
	}
	p.close()
}

// leave releases the pair's endpoint.
func (p *loopPair) leave() {
	if p.endpoint != nil {
		if p.grouped {
			p.loop.part(p)
		}
		wasReset := p.errno == uint16(unix.ECONNRESET) || p.errno == uint16(unix.EPIPE)
		if p.reason == serverFailed && wasReset && p.hungUpOn() {
			p.endpoint.Failed(lb.Reset)
		}
		if p.tls != nil && p.tls.denies && p.hungUpOn() && isUnanswered(p.reason, p.cause()) {
			p.endpoint.Unanswered()
		}
		p.endpoint.Done()
		p.endpoint = nil
	}
	if p.tls != nil {
		p.tls.denies = false
	}
}
