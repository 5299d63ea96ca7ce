package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
)

// dialing is what a pair remembers of endpoints that it did not reach.
type dialing struct {
	tried lb.Tried
	errs  *multierror.Error
}

// connect begins to connect to the next endpoint, or ends the pair if there is none.
func (p *loopPair) connect() {
	for {
		var tried lb.Tried
		if p.dial != nil {
			tried = p.dial.tried
		}
		var err error
		if tried.Len() == maxDials {
			err = lb.ErrMissingEndpoints
		} else {
			p.endpoint, err = p.s.next(p.src, tried)
		}
		if err != nil {
			p.unserved(err)
			return
		}
		if p.endpoint.Host != "" {
			p.resolve()
			return
		}
		if errno := p.connectTo(p.endpoint.Addr); errno == 0 {
			return
		} else {
			p.missed(p.dialError(p.endpoint.Addr, errno))
		}
	}
}

// connectTo begins to connect to addr. The rest is told by epoll, or by the timer.
func (p *loopPair) connectTo(addr netip.AddrPort) syscall.Errno {
	fd, err := connect(addr, unix.SOCK_STREAM)
	if err != 0 && err != unix.EINPROGRESS {
		return err
	}
	setOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	setOption(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	p.fd[server] = fd
	p.readable[server], p.writable[server], p.hangup[server] = false, false, false
	if err := p.loop.add(fd, pairEvents, p.number, server); err != 0 {
		p.fd[server] = -1
		closeFD(fd)
		return err
	}
	p.loop.wheel.set(&p.timer, p.loop.now+int64(p.s.spec.Load().connectTimeout()))
	return 0
}

// connected is told that the connection to the endpoint has succeeded or failed.
func (p *loopPair) connected() {
	if p.hangup[server] { // else it has not failed
		if err := socketError(p.fd[server]); err != 0 {
			p.connectFailed(err)
			return
		}
	}
	p.dial = nil
	p.state = relaying
	p.writable[client] = true // a new socket has room
	p.last = p.loop.now
	if p.s.log.IsDebug() {
		p.s.log.Debug("connected", "client", p.src, "endpoint", p.endpoint.Address(), "took", time.Duration(p.loop.now-p.began))
	}
	p.schedule()
	p.move(client)
	if p.state == relaying {
		p.move(server)
	}
}

// connectFailed goes on to the next endpoint.
func (p *loopPair) connectFailed(err syscall.Errno) {
	if fd := p.fd[server]; fd >= 0 {
		closeFD(fd)
		p.fd[server] = -1
	}
	p.missed(p.dialError(p.endpoint.Addr, err))
	p.connect()
}

func (p *loopPair) dialError(addr netip.AddrPort, err syscall.Errno) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: os.NewSyscallError("connect", err)}
}

// missed notes that the endpoint was not reached.
func (p *loopPair) missed(err error) {
	if p.dial == nil {
		p.dial = &dialing{}
	}
	p.s.dialFailed(p.endpoint, err)
	p.dial.errs = multierror.Append(p.dial.errs, err)
	p.dial.tried.Add(p.endpoint.ID)
}

// unserved resets the client, because of err or what was tried before.
func (p *loopPair) unserved(err error) {
	if d := p.dial; d != nil && errors.Is(err, lb.ErrMissingEndpoints) {
		d.errs.ErrorFormat = oneLine
		err = d.errs
	}
	p.s.unserved(p.src, err)
	p.close()
}

// resolve looks the endpoint's host name up, beside the loop, and then connects to the first address that can be connected to at all.
func (p *loopPair) resolve() {
	if p.dial == nil {
		p.dial = &dialing{} // tells the answer whether the pair is still the one that asked
	}
	p.loop.wheel.clear(&p.timer)
	t, d, host := p.socket, p.dial, p.endpoint.Host
	ctx, cancel := context.WithTimeout(t.engine.ctx, p.s.spec.Load().connectTimeout())
	t.engine.lookups.Go(func() {
		defer cancel()
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		p.loop.post(func() {
			if p.dial == d && p.state == connecting {
				p.resolved(addrs, err)
			}
		})
	})
}

func (p *loopPair) resolved(addrs []netip.Addr, err error) {
	for _, a := range addrs {
		addr := netip.AddrPortFrom(a.Unmap(), p.endpoint.Addr.Port())
		errno := p.connectTo(addr)
		if errno == 0 {
			return
		}
		err = p.dialError(addr, errno)
	}
	p.missed(err)
	p.connect()
}
