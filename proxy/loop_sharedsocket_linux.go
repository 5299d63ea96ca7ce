package proxy

import (
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
	"github.com/lictor-proxy/lictor/proxy/internal/wheel"
)

// A sharedSocket is connected to an endpoint. All one-way sessions of a shard with that endpoint send through it: they
// expect no answers, so their clients need not be distinguished. The socket stays open between sessions, because the
// endpoint may refuse a datagram long after its session has ended. Datagrams that arrive are discarded.
type sharedSocket struct {
	timer    wheel.Timer
	shard    *udpShard
	share    *share // share that the socket's descriptor was taken from
	endpoint *lb.Member
	addr     netip.AddrPort
	named    namedUse // address in use, if the endpoint has a host name
	fd       int32
	number   int32
	hops     uint8         // hops of the datagrams it sends; 0 for the system's default
	uses     int           // number of sessions that use the socket
	used     time.Duration // when a session last left the socket
	dead     bool          // whether the endpoint has refused a datagram
}

// sharedSocketTo returns the shared socket to the endpoint of x. A new socket sets the hops of x on its datagrams.
// sharedSocketTo returns nil without an error if x waits for a port.
func (h *udpShard) sharedSocketTo(x *loopSession, addr netip.AddrPort) (*sharedSocket, syscall.Errno) {
	s, m, hops := x.s, x.endpoint, x.hops
	if o := h.sharedSockets[m]; o != nil && !o.named.isOver() {
		return o, 0
	}
	if !h.takeOne(s.share) {
		return nil, unix.EMFILE
	}
	fd, err := sys.StartConnect(netip.Addr{}, addr, unix.SOCK_DGRAM)
	if err == unix.EAGAIN { // all ports to that address are in use, see connect(2)
		fd, err = h.portFor(x, addr)
	}
	if err != 0 || fd < 0 {
		s.share.release(sessionDescriptors)
		return nil, err
	}
	if hops > 0 {
		sys.SetHops(fd, addr.Addr().Is6(), hops)
	}
	o := &sharedSocket{shard: h, share: s.share, endpoint: m, addr: addr, named: x.named, fd: fd, hops: hops,
		used: h.loop.now}
	o.timer.Owner = o
	o.number = h.loop.assignNumber(o)
	h.sharedSockets[m] = o
	if err := h.loop.add(fd, unix.EPOLLIN, o.number, 0); err != 0 {
		o.close()
		return nil, err
	}
	h.loop.wheel.Set(&o.timer, h.loop.now+h.idle)
	return o, 0
}

// ready implements pollable.
func (o *sharedSocket) ready(int, uint32) {
	if o.fd < 0 {
		return
	}
	if _, err := sys.RecvDatagram(o.fd, o.shard.loop.buf[:1]); isRefusalErrno(err) {
		o.refuse(os.NewSyscallError("recv", err))
	}
}

// refuse records that the endpoint cannot be reached. New sessions get a new socket.
func (o *sharedSocket) refuse(err error) {
	if o.dead {
		return
	}
	o.dead = true
	u := o.shard.socket
	u.service.Load().addressFailed(u.engine.resolver, o.endpoint, o.named, err)
	delete(o.shard.sharedSockets, o.endpoint)
	if o.uses == 0 {
		o.close()
	}
}

// done must be called when a session leaves the socket.
func (o *sharedSocket) done() {
	o.uses--
	o.used = o.shard.loop.now
	if o.uses == 0 && o.dead {
		o.close()
	}
}

// Timeout implements wheel.Owner. A socket without sessions stays open for the idle timeout of a session.
func (o *sharedSocket) Timeout() {
	h := o.shard
	switch at := o.used + h.idle; {
	case o.uses > 0:
		h.loop.wheel.Set(&o.timer, h.loop.now+h.idle)
	case at > h.loop.now:
		h.loop.wheel.Set(&o.timer, at)
	default:
		o.close()
	}
}

func (o *sharedSocket) close() {
	h := o.shard
	if o.fd < 0 {
		return
	}
	h.loop.discard(o.fd)
	o.fd = -1
	if h.sharedSockets[o.endpoint] == o {
		delete(h.sharedSockets, o.endpoint)
	}
	h.loop.wheel.Clear(&o.timer)
	h.loop.release(o.number)
	o.share.release(sessionDescriptors)
}
