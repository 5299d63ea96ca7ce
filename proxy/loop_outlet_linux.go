package proxy

import (
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/wheel"
)

// An outlet is a socket connected to an endpoint that all one-way sessions of a shard with that endpoint send through: where no
// answers are expected, nothing has to tell their clients apart. It stays open between sessions, so that it hears when the endpoint
// refuses, which may be long after the session of one datagram has ended. What comes back is thrown away.
type outlet struct {
	timer    wheel.Timer
	shard    *udpShard
	share    *share // that its descriptor is of
	endpoint *lb.Member
	addr     netip.AddrPort
	fd       int32
	number   int32
	hops     uint8 // that what it sends has; 0: the system's default
	uses     int   // sessions
	used     int64 // when a session let go of it last
	dead     bool  // the endpoint refused a datagram
}

// outletTo is the outlet to the endpoint of x. A new one gives what it sends as many hops as x has. It is nil if x waits
// for a port.
func (h *udpShard) outletTo(x *loopSession, addr netip.AddrPort) (*outlet, syscall.Errno) {
	s, m, hops := x.s, x.endpoint, x.hops
	if o := h.outlets[m]; o != nil {
		return o, 0
	}
	if !h.takeOne(s.share) {
		return nil, unix.EMFILE
	}
	fd, err := connect(addr, unix.SOCK_DGRAM)
	if err == unix.EAGAIN { // connect(2): all ports for it are in use
		fd, err = h.portFor(x, addr)
	}
	if err != 0 || fd < 0 {
		s.share.release(sessionDescriptors)
		return nil, err
	}
	if hops > 0 {
		setHops(fd, addr.Addr().Is6(), hops)
	}
	o := &outlet{shard: h, share: s.share, endpoint: m, addr: addr, fd: fd, hops: hops, used: h.loop.now}
	o.timer.Owner = o
	o.number = h.loop.number(o)
	h.outlets[m] = o
	if err := h.loop.add(fd, unix.EPOLLIN, o.number, 0); err != 0 {
		o.close()
		return nil, err
	}
	h.loop.wheel.Set(&o.timer, h.loop.now+h.idle)
	return o, 0
}

// ready implements pollable.
func (o *outlet) ready(int, uint32) {
	if o.fd < 0 {
		return
	}
	if _, err := recvDatagram(o.fd, o.shard.loop.buf[:1]); refusal(err) {
		o.refuse(os.NewSyscallError("recv", err))
	}
}

// refuse notes that the endpoint cannot be reached. Sessions find out by themselves; new ones get a new outlet.
func (o *outlet) refuse(err error) {
	if o.dead {
		return
	}
	o.dead = true
	o.shard.socket.service.Load().dialFailed(o.endpoint, err)
	delete(o.shard.outlets, o.endpoint)
	if o.uses == 0 {
		o.close()
	}
}

// done is told of each session that lets go of it.
func (o *outlet) done() {
	o.uses--
	o.used = o.shard.loop.now
	if o.uses == 0 && o.dead {
		o.close()
	}
}

// Timeout implements wheel.Owner: without sessions, an outlet stays as long as a session would.
func (o *outlet) Timeout() {
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

func (o *outlet) close() {
	h := o.shard
	if o.fd < 0 {
		return
	}
	h.loop.discard(o.fd)
	o.fd = -1
	if h.outlets[o.endpoint] == o {
		delete(h.outlets, o.endpoint)
	}
	h.loop.wheel.Clear(&o.timer)
	h.loop.release(o.number)
	o.share.release(sessionDescriptors)
}
