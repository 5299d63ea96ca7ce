package proxy

import (
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/deadline"
	"github.com/lictor-proxy/lictor/lb"
)

// A nameDial is the progress of a pair through the addresses of its endpoint's host name.
type nameDial struct {
	addrs    []netip.Addr  // addresses that have not been tried yet
	tried    []netip.Addr  // addresses that have been tried, including the current one
	deadline time.Duration // when the dials to all addresses must have succeeded, by the loop's clock
	why      syscall.Errno // why the last address in tried was not reached
	last     bool          // whether the name was looked up again because no address answered
}

// resolve connects to an address of the endpoint's host name, trying one after the other until one answers.
func (p *loopPair) resolve() {
	if p.dial == nil {
		p.dial = &dialing{}
	}
	p.dial.name = nameDial{why: unix.ETIMEDOUT}
	p.lookUp()
}

// lookUp gets the addresses of the endpoint's host name. If the addresses are unknown, a goroutine looks them up.
func (p *loopPair) lookUp() {
	p.loop.wheel.Clear(&p.timer)
	// The goroutine must not read p, which may serve another client by then.
	l, t, g, host := p.loop, p.socket, p.thisUse(), p.endpoint.Host
	if addrs, ok := t.engine.resolver.Known(host); ok {
		p.resolved(addrs, nil)
		return
	}
	ctx, cancel := deadline.WithTimeout(t.engine.ctx, p.s.spec.Load().connectTimeout())
	t.engine.lookups.Go(func() {
		defer cancel()
		addrs, err := t.engine.resolver.Lookup(ctx, host)
		l.post(func() {
			if !g.isOver() {
				p.resolved(addrs, err)
			}
		})
	})
}

// resolved continues with the addresses that have not been tried. All addresses share the service's connect timeout.
func (p *loopPair) resolved(addrs []netip.Addr, err error) {
	d := &p.dial.name
	if err == nil {
		addrs, err = p.s.admitted(p.s.spec.Load(), p.endpoint, p.src.Addr(), addrs)
	}
	if err != nil && !d.last { // after a second lookup, the error of the dials is reported instead
		p.missed(err)
		p.connect()
		return
	}
	for _, a := range p.socket.engine.resolver.Order(lb.TCP, p.endpoint.Endpoint, addrs) {
		if !slices.Contains(d.tried, a) {
			d.addrs = append(d.addrs, a)
		}
	}
	d.deadline = p.loop.now + p.s.spec.Load().connectTimeout()
	p.connectToNext()
}

// connectToNext dials the next address. Each address gets an equal part of the remaining time. If no address is left,
// connectToNext looks the name up once more, because the endpoint may have moved.
func (p *loopPair) connectToNext() {
	d := &p.dial.name
	for len(d.addrs) > 0 && p.loop.now < d.deadline {
		addr := d.addrs[0]
		part := (d.deadline - p.loop.now) / time.Duration(len(d.addrs))
		d.addrs, d.tried = d.addrs[1:], append(d.tried, addr)
		err := p.connectTo(lb.Addr{AddrPort: netip.AddrPortFrom(addr, p.endpoint.Addr.Port())}, part)
		if err == 0 {
			return
		}
		p.addressFailed(err)
	}
	d.addrs = nil
	if !d.last && len(d.tried) > 0 {
		if d.last = true; p.looksAgain() {
			return
		}
	}
	p.missed(p.dialError(d.why))
	p.connect()
}

// looksAgain gets the addresses of the host name again. looksAgain returns false if all known addresses have been
// tried.
func (p *loopPair) looksAgain() bool {
	addrs, ok := p.socket.engine.resolver.Known(p.endpoint.Host)
	if ok && !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !slices.Contains(p.dial.name.tried, a) }) {
		return false
	}
	p.lookUp()
	return true
}

// addressMissed records that the current address was not reached, and dials the next one.
func (p *loopPair) addressMissed(err syscall.Errno) {
	p.addressFailed(err)
	p.connectToNext()
}

// addressFailed records that the current address was not reached, unless this host caused the error.
func (p *loopPair) addressFailed(err syscall.Errno) {
	p.dial.name.why = err
	if _, local := causeOf(os.NewSyscallError("connect", err)); local {
		return
	}
	tried := p.dial.name.tried
	p.socket.engine.resolver.Failed(lb.TCP, p.endpoint.Endpoint, tried[len(tried)-1])
}

// addressReached records that the current address was reached, if the endpoint has a host name.
func (p *loopPair) addressReached() {
	if p.endpoint.Host == "" {
		return
	}
	tried := p.dial.name.tried
	at := netip.AddrPortFrom(tried[len(tried)-1], p.endpoint.Addr.Port())
	p.socket.engine.resolver.Reached(lb.TCP, at)
}
