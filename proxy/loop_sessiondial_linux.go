package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/deadline"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// A lookup is the state of a session whose endpoint's host name is being resolved, or that waits for a port.
type lookup struct {
	queue [][]byte // datagrams to send once the session is connected
}

// connect opens the socket to the endpoint, or first resolves the endpoint's host name if it has one.
func (x *loopSession) connect() error {
	spec := x.s.spec.Load()
	if x.endpoint.Host == "" {
		if err := spec.unfit(x.endpoint, x.client().Addr(), x.endpoint.Addr.Addr()); err != nil {
			return err
		}
		return x.connectTo(x.endpoint.Addr)
	}
	if out := x.shard.sharedSockets[x.endpoint]; out != nil && x.holding == nil && !out.named.isOver() {
		err := x.s.barred(spec, x.endpoint, x.client().Addr(), out.addr)
		if err == nil {
			x.named = out.named
			return x.connectTo(out.addr)
		}
		out.refuse(err) // a listener of Lictor now has this address
	}
	if addrs, ok := x.shard.socket.engine.resolver.Known(x.endpoint.Host); ok {
		return x.connectToAny(addrs)
	}
	x.resolve()
	return nil
}

// connectToAny opens the socket to the first address of the endpoint's host name for which that works.
func (x *loopSession) connectToAny(addrs []netip.Addr) error {
	addrs, err := x.s.admitted(x.s.spec.Load(), x.endpoint, x.client().Addr(), addrs)
	r := x.shard.socket.engine.resolver
	for _, a := range r.Order(lb.UDP, x.endpoint.Endpoint, addrs) {
		at := netip.AddrPortFrom(a, x.endpoint.Addr.Port())
		x.named = useNamed(r, at)
		if err = x.connectTo(at); err == nil {
			break
		}
	}
	return err
}

func (x *loopSession) connectTo(addr netip.AddrPort) error {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	h := x.shard
	x.six = addr.Addr().Is6()
	if x.holding == nil {
		out, err := h.sharedSocketTo(x, addr)
		switch {
		case err != 0:
			return x.dialError(err)
		case out == nil:
			return nil
		}
		out.uses++
		x.shared, x.fd, x.state = out, out.fd, live
		return nil
	}
	from := x.s.spec.Load().source(x.client().Addr())
	fd, err := sys.StartConnect(from, addr, unix.SOCK_DGRAM)
	if err == unix.EAGAIN && !from.IsValid() { // all ports to that address are in use, see connect(2)
		fd, err = h.portFor(x, addr)
	}
	if err != 0 {
		return x.dialError(err)
	}
	if fd < 0 {
		return nil
	}
	return x.use(fd)
}

// use makes fd the session's socket. If use returns an error, it has closed fd.
func (x *loopSession) use(fd int32) error {
	x.shard.loop.denied.GrowReceiveBuffer(fd, socketBuffer)
	x.enlist()
	if err := x.shard.loop.add(fd, unix.EPOLLIN, x.number, 0); err != 0 {
		sys.Close(fd)
		return x.dialError(err)
	}
	x.fd, x.state = fd, live
	return nil
}

// enlist gives the session its number, which epoll events and listings use. The number is released when the session is
// over.
func (x *loopSession) enlist() {
	if x.number == 0 { // number 0 belongs to the loop's waker
		x.number = x.shard.loop.assignNumber(x)
	}
}

func (x *loopSession) dialError(err syscall.Errno) error {
	return fmt.Errorf("dial udp %s: %w", x.endpoint.Address(), os.NewSyscallError("connect", err))
}

// resolve looks up the endpoint's host name in a goroutine, and then connects.
func (x *loopSession) resolve() {
	l, u, g, host := x.shard.loop, x.shard.socket, x.thisUse(), x.endpoint.Host
	x.lookup, x.state = &lookup{}, resolving
	ctx, cancel := deadline.WithTimeout(u.engine.ctx, x.s.spec.Load().connectTimeout())
	u.engine.lookups.Go(func() {
		defer cancel()
		addrs, err := u.engine.resolver.Lookup(ctx, host)
		l.post(func() {
			if !g.isOver() {
				x.resolved(addrs, err)
			}
		})
	})
}

func (x *loopSession) resolved(addrs []netip.Addr, err error) {
	if err == nil {
		err = x.connectToAny(addrs)
	}
	x.connected(err)
}

// connected sends the datagrams that have waited, if the session now has its socket. connected does nothing while the
// session waits for a port. After an error, connected records that the endpoint cannot be reached.
func (x *loopSession) connected(err error) {
	switch {
	case err != nil:
		x.refuse(err)
		return
	case x.state == resolving:
		return
	}
	queue := x.lookup.queue
	x.lookup = nil
	x.settle(x.hops)
	for _, b := range queue {
		_ = sys.SendDatagram(x.fd, b) // a datagram may be lost; the next one shows a persistent error
	}
	x.finished()
}
