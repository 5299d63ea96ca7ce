package proxy

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/batch"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file hands UDP sessions from the loops of one process to those of another, see Session.

func (u *loopUDP) descriptors() ([]int, error) {
	var fds []int32
	for _, h := range u.shards {
		fds = append(fds, h.fd)
	}
	return duplicates(fds...)
}

func (u *loopUDP) release() { _ = u.Close() } // Close returns no error

// suspend implements sessionSocket. All shards stop reading before any shard returns its sessions, because a shard that
// reads may end a session of another shard.
func (u *loopUDP) suspend() []Session {
	for _, h := range u.shards {
		h.loop.do(h.suspend)
	}
	var all []Session
	for i, h := range u.shards {
		h.loop.do(func() {
			for _, x := range h.handOver() {
				x.Socket = i
				all = append(all, x)
			}
		})
	}
	return all
}

func (u *loopUDP) resume() {
	for _, h := range u.shards {
		h.loop.do(h.resume)
	}
}

// adoptedAtOnce is how many sessions a loop adopts in one turn. One session per turn would take long on a busy loop;
// all sessions in one turn would delay the loop's other sockets.
const adoptedAtOnce = 256

func (u *loopUDP) adopt(all []Session) (adopted int) {
	parts := make([][]Session, len(u.shards))
	for _, x := range all {
		if x.Socket < 0 || x.Socket >= len(parts) {
			sys.Close(int32(x.FD))
			continue
		}
		parts[x.Socket] = append(parts[x.Socket], x)
	}
	for i, h := range u.shards {
		for some := range slices.Chunk(parts[i], adoptedAtOnce) {
			h.loop.do(func() {
				for _, x := range some {
					if h.adopt(x) {
						adopted++
					} else {
						sys.Close(int32(x.FD))
					}
				}
			})
		}
	}
	return adopted
}

// suspend stops the shard: it reads no datagrams, and its sessions neither end nor begin.
func (h *udpShard) suspend() {
	if h.suspended || h.closed {
		return
	}
	h.suspended = true
	h.aged()
	if h.watched {
		h.loop.unwatch(h.fd)
		h.watched = false
	}
	h.loop.wheel.Clear(&h.timer)
}

// handOver returns the sessions that can continue in another process. handOver ends sessions that have their own socket
// and wait for a lookup, because a lookup cannot be handed over.
func (h *udpShard) handOver() (all []Session) {
	for x, next := h.ring.first, (*loopSession)(nil); x != nil; x = next {
		next = x.next
		h.loop.wheel.Clear(&x.timer)
		switch {
		case x.holding == nil:
		case x.state == live && !x.dead:
			h.loop.unwatch(x.fd)
			all = append(all, x.handed())
		default:
			x.end(endCut)
		}
	}
	return all
}

func (x *loopSession) handed() Session {
	x.settle(x.hops)
	h := x.shard
	s := Session{
		Client: sys.AddrPort(&x.clientName), Endpoint: x.endpoint.Endpoint, Requests: x.requests, Answers: x.answers,
		Sent: x.sent,
		Up:   x.bytes[clientSide], Down: x.bytes[serverSide], Age: h.loop.now - x.began,
		Quiet: h.loop.now - x.used, Bound: h.byClient[x.key] == x, FD: int(x.fd),
		Headers: x.headers.handed(),
	}
	if x.key.Local != (sys.Source{}) {
		s.Local = netip.AddrFrom16(x.key.Local)
		if x.clientName.Family == unix.AF_INET {
			s.Local = s.Local.Unmap()
		}
	}
	return s
}

// resume undoes suspend.
func (h *udpShard) resume() {
	if !h.suspended {
		return
	}
	h.suspended = false
	h.aged()
	h.watch()
	for x := h.ring.first; x != nil; x = x.next {
		h.loop.wheel.Set(&x.timer, x.used+h.idle)
		if x.holding != nil {
			// If add fails, the session only gets no answers, and ends when it is idle.
			_ = h.loop.add(x.fd, unix.EPOLLIN, x.number, 0)
		}
	}
	for _, q := range h.unsettled {
		q.settle()
	}
	h.unsettled = nil
}

// adopt continues a session of another process. adopt returns false if it cannot take the session.
func (h *udpShard) adopt(a Session) bool {
	u, l := h.socket, h.loop
	s := u.service.Load()
	spec := s.spec.Load()
	if !spec.adopts(u.sessions.Load()) || !s.share.take(sessionDescriptors) {
		return false
	}
	endpoint := s.adopt(a.Endpoint)
	if endpoint == nil {
		s.share.release(sessionDescriptors)
		return false
	}
	l.useUDP()
	x := l.newSession()
	*x = loopSession{
		shard: h, s: s, endpoint: endpoint, holding: h.holdingOf(s), used: max(l.now-a.Quiet, 0),
		fd: int32(a.FD), head: -1, serial: l.newSerial(), adopted: true,
		requests: a.Requests, answers: a.Answers, sent: a.Sent, bytes: [2]int64{clientSide: a.Up, serverSide: a.Down},
		began: l.now - a.Age, state: live, headers: a.Headers.adopted(),
	}
	x.timer.Owner = x
	sys.PutAddr(&x.clientName, a.Client)
	x.key.Client = batch.ClientIDOf(&x.clientName)
	if a.Local.IsValid() {
		x.key.Local = a.Local.As16()
	}
	if joins, err := unix.GetsockoptInt(a.FD, unix.SOL_UDP, unix.UDP_GRO); err == nil && joins != 0 {
		x.joined = true
	}
	x.key.Introduced = introducedBy(x.headers.again())
	x.enlist()
	if l.add(x.fd, unix.EPOLLIN, x.number, 0) != 0 {
		l.release(x.number)
		endpoint.Done()
		s.share.release(sessionDescriptors)
		return false
	}
	h.idle = spec.sessionIdle(h.draining)
	x.counted = s.countAnyway(x.client())
	h.add(x)
	l.wheel.Set(&x.timer, x.used+h.idle)
	if !a.Bound || x.headers.usedBy() != spec.headerUse() {
		x.unbind()
	}
	return true
}

// duplicates returns duplicates of the given descriptors, or an error and no descriptors.
func duplicates(fds ...int32) (all []int, err error) {
	for _, fd := range fds {
		d, err := duplicateFD(int(fd))
		if err != nil {
			for _, d := range all {
				unix.Close(d)
			}
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}
