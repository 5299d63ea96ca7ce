package proxy

import (
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/batch"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
	"github.com/lictor-proxy/lictor/proxy/internal/wheel"
)

// A udpShard is one loop's part of a UDP listener: a socket, and the sessions of the clients whose datagrams come
// there. Everything but what is atomic belongs to the loop.
//
// What holds whenever the loop waits: a session is in the ring as long as it has a descriptor or waits for a host
// name, the one idle longest first; it is in byClient too unless it has had all the requests that it may have; it
// has its timer set; and of the datagrams that were read, none waits in memory but for a host name.
type udpShard struct {
	timer   wheel.Timer // of a pause
	loop    *eventLoop
	socket  *loopUDP
	fd      int32
	number  int32
	watched bool          // epoll tells of datagrams
	backoff time.Duration // zero after a datagram was read
	idle    time.Duration // idle timeout that the sessions' timers were last set by

	byClient      map[batch.Key]*loopSession
	ring          sessionRing
	sharedSockets map[*lb.Member]*sharedSocket // of one-way sessions

	// Other loops read these: when the session at the front of the ring was last used, on the clock that all loops
	// share, or noSession; and the holding of the present service.
	oldest    atomic.Int64
	holding   atomic.Pointer[holding]
	unsettled []*holding // that owe something since the shard was suspended

	draining, drained, closed bool
	suspended                 bool // another process is taking over
}

func newUDPShard(l *eventLoop, u *loopUDP, fd int32) *udpShard {
	h := &udpShard{loop: l, socket: u, fd: fd, byClient: map[batch.Key]*loopSession{},
		sharedSockets: map[*lb.Member]*sharedSocket{}}
	h.timer.Owner = h
	h.oldest.Store(int64(noSession))
	h.holdingOf(u.service.Load())
	return h
}

func (h *udpShard) open() {
	if h.closed {
		return
	}
	h.number = h.loop.assignNumber(h)
	h.loop.useUDP()
	h.retime()
	h.watch()
}

// watch has epoll tell of datagrams as long as there are any: a turn takes a batch, and leaves the rest to the next.
func (h *udpShard) watch() {
	if h.watched || h.closed || h.suspended {
		return
	}
	err := h.loop.add(h.fd, unix.EPOLLIN, h.number, 0)
	if h.watched = err == 0; !h.watched {
		h.loop.unwatched(h.socket.service.Load(), err)
		h.pauseFor(maxBackoff)
	}
}

// pauseFor reads nothing for a while.
func (h *udpShard) pauseFor(pause time.Duration) {
	if h.watched {
		_ = sys.EpollRemove(h.loop.epfd, h.fd)
		h.watched = false
	}
	h.loop.wheel.Set(&h.timer, h.loop.now+pause)
}

// Timeout implements wheel.Owner: a pause is over.
func (h *udpShard) Timeout() { h.watch() }

// ready implements pollable: there are datagrams.
func (h *udpShard) ready(int, uint32) {
	in := h.loop.udp.in
	n, err := in.Receive(h.fd, 0, batch.Size)
	switch {
	case err == unix.EAGAIN:
		return
	case err != 0:
		h.backoff = min(max(2*h.backoff, minBackoff), maxBackoff)
		h.socket.service.Load().log.Warn("receive failed, waiting", "error", os.NewSyscallError("recvmmsg", err),
			"wait", h.backoff)
		h.pauseFor(h.backoff)
		return
	}
	h.backoff = 0
	h.loop.behind = h.loop.behind || n == batch.Size
	h.forward(in, n)
}

// forward sends the first n datagrams of in on, session by session.
func (h *udpShard) forward(in *batch.Batch, n int) {
	s := h.socket.service.Load()
	work := h.loop.udp.work[:0]
	for i := range n {
		if in.ToAll[i] && h != h.socket.shards[0] {
			continue // each socket of the listener has a copy
		}
		x := h.sessionFor(s, in, i)
		if x == nil {
			s.at(h.loop.id).datagramsDropped.Add(int64(in.Count(i)))
			continue
		}
		if x.head < 0 {
			x.head = int16(i)
			work = append(work, x)
		} else {
			in.Next[x.tail] = int16(i)
		}
		x.tail, in.Next[i] = int16(i), -1
	}
	for _, x := range work {
		x.forward(in)
	}
}

// sessionFor is the session for datagram i, a new one if there is none that may have it. A session whose endpoint
// refused, is ejected or has left the service is replaced by one with another endpoint.
func (h *udpShard) sessionFor(s *service, in *batch.Batch, i int) *loopSession {
	key := in.Key(i, h.socket.local)
	x := h.byClient[key]
	var tried lb.Tried
	if x != nil && x.head < 0 { // else it has one of this batch already
		if why := s.replaces(x.s, x.endpoint, x.isRefused()); why != notEnded {
			if why == endRefused && !x.named.isOver() {
				tried.Add(x.endpoint.ID)
			}
			x.end(why)
			x = nil
		}
	}
	if x == nil {
		if x = h.begin(s, key, in, i, &tried); x == nil {
			return nil
		}
	}
	x.countRequests(in.Count(i))
	return x
}

// begin begins a session for the client of datagram i, with an endpoint that is not in tried if there is one. It
// returns nil after having said why there is none.
func (h *udpShard) begin(s *service, key batch.Key, in *batch.Batch, i int, tried *lb.Tried) *loopSession {
	if h.draining {
		return nil
	}
	var x *loopSession
	var q *holding
	counted, ok := s.beginSession(clientOf(&in.Names[i]), in.Hops[i], tried, sessionOpener{
		takeRoom: func() bool {
			if s.spec.Load().isOneWay() { // its shared socket has a descriptor, and it has none
				h.makeRoomOneWay(s)
				return true
			}
			q = h.holdingOf(s)
			return h.makeRoom(s)
		},
		giveRoom: func() {
			if q != nil {
				s.share.release(sessionDescriptors)
			}
		},
		attach: func(m *lb.Member) error {
			x = h.loop.newSession()
			x.init(h, s, m, key, in, i, q)
			err := x.connect()
			if err != nil && x.number > 0 {
				h.loop.release(x.number)
			}
			return err
		},
	})
	if !ok {
		return nil
	}
	x.counted = counted
	h.add(x)
	return x
}

func (h *udpShard) add(x *loopSession) {
	x.enlist()
	c := x.s.at(h.loop.id)
	c.sessions.Add(1)
	c.sessionsActive.Add(1)
	h.socket.sessions.Add(1)
	if q := x.holding; q != nil {
		q.count++
		q.held.Add(1)
	}
	h.byClient[x.key] = x
	h.ring.push(x)
	h.aged()
	h.loop.wheel.Set(&x.timer, h.loop.now+h.idle)
	if x.s.log.IsDebug() {
		x.s.log.Debug("session began", "client", clientOf(&x.clientName), "endpoint", x.endpoint.Address())
	}
}

// retime sets the sessions' timers anew if the idle timeout is another than it was.
func (h *udpShard) retime() {
	if h.draining || h.closed || h.suspended {
		return
	}
	spec := h.socket.service.Load().spec.Load()
	// Where each datagram counts, the kernel must not join them, nor where nobody hears how large they were.
	joins := spec.Requests <= 0 && !h.loop.denied.Has(sys.CallRecvmsg)
	sys.SetOption(h.fd, unix.SOL_UDP, unix.UDP_GRO, sys.Boolean(joins))
	idle := spec.sessionIdle(h.draining)
	if idle == h.idle {
		return
	}
	h.idle = idle
	for x := h.ring.first; x != nil; x = x.next {
		h.loop.wheel.Set(&x.timer, x.used+idle)
	}
}

// drain lets no new sessions in, and makes those that there are expire soon.
func (h *udpShard) drain() {
	h.draining = true
	h.idle = h.socket.service.Load().spec.Load().sessionIdle(true)
	for x := h.ring.first; x != nil; x = x.next {
		h.loop.wheel.Set(&x.timer, x.used+h.idle)
	}
	h.emptied()
}

// emptied tells the socket when the last session has ended of a shard that will have no new ones.
func (h *udpShard) emptied() {
	if h.draining && !h.drained && h.ring.first == nil {
		h.drained = true
		h.socket.shardDrained()
	}
}

func (h *udpShard) close() {
	if h.closed {
		return
	}
	h.closed = true
	for x := h.ring.first; x != nil; x = h.ring.first {
		if h.suspended && x.holding != nil {
			x.end(endHanded)
		} else {
			x.end(endCut)
		}
	}
	for _, o := range h.sharedSockets {
		o.close()
	}
	h.pauseFor(0)
	h.loop.wheel.Clear(&h.timer)
	sys.Close(h.fd)
	if h.number > 0 {
		h.loop.release(h.number)
	}
}

// clientOf is a client's address for all others; one of IPv4 is one, whatever socket it came to.
func clientOf(sa *unix.RawSockaddrInet6) netip.AddrPort {
	a := sys.AddrPort(sa)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
