package proxy

import (
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/batch"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
	"github.com/lictor-proxy/lictor/proxy/internal/wheel"
)

// A udpShard is one loop's part of a UDP listener: a socket, and the sessions of the clients whose datagrams arrive
// there. Only the loop may access a shard's fields, except the atomic ones.
//
// These invariants hold whenever the loop waits. Every session is in the ring, the one idle longest first, and has its
// timer set. A session that may get more requests is in byClient too. Datagrams that were read wait in memory only for
// a host name or a port.
type udpShard struct {
	timer   wheel.Timer // ends a pause
	loop    *eventLoop
	socket  *loopUDP
	fd      int32
	number  int32
	watched bool          // whether epoll reports datagrams
	backoff time.Duration // pause after the last failed read; zero once a datagram was read
	idle    time.Duration // idle timeout for which the sessions' timers were last set

	byClient      map[batch.Key]*loopSession
	ring          sessionRing
	sharedSockets map[*lb.Member]*sharedSocket // sockets of one-way sessions, by endpoint
	heard         proxyproto.Header            // header of the latest datagram; its TLVs are a part of the batch

	// Other loops read oldest and holding. oldest is the instant of the last use of the ring's first session, by the
	// loops' common clock, or noSession. holding belongs to the present service.
	oldest    atomic.Int64
	holding   atomic.Pointer[holding]
	unsettled []*holding // holdings that got a debt while the shard was suspended

	draining, drained, closed bool
	suspended                 bool // whether another process is taking over the sessions
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

// watch makes epoll report datagrams as long as there are any. A turn reads one batch and leaves the rest to the next.
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

// pauseFor stops reading datagrams for the given time.
func (h *udpShard) pauseFor(pause time.Duration) {
	if h.watched {
		_ = sys.EpollRemove(h.loop.epfd, h.fd)
		h.watched = false
	}
	h.loop.wheel.Set(&h.timer, h.loop.now+pause)
}

// Timeout implements wheel.Owner: it ends a pause.
func (h *udpShard) Timeout() { h.watch() }

// ready implements pollable: datagrams have arrived.
func (h *udpShard) ready(int, uint32) {
	h.loop.relays = true
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

// forward forwards the first n datagrams of in, session by session.
func (h *udpShard) forward(in *batch.Batch, n int) {
	s := h.socket.service.Load()
	hears := s.filter.Load().headersOf().heard
	work := h.loop.udp.work[:0]
	for i := range n {
		if in.ToAll[i] && h != h.socket.shards[0] {
			continue // each socket of the listener gets a copy; only the first one forwards it
		}
		var x *loopSession
		if !hears {
			x = h.sessionFor(s, in, i, nil)
		} else if heard := h.hear(s, in, i); heard != nil {
			x = h.sessionFor(s, in, i, heard)
		}
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

// sessionFor returns the session for datagram i, a new one if necessary. A session is replaced if its endpoint has
// refused a datagram, is ejected or has left the service. A session ends if its client may not come any more.
// heard is the PROXY header of the datagram, or nil. sessionFor returns nil if no session can begin.
func (h *udpShard) sessionFor(s *service, in *batch.Batch, i int, heard *proxyproto.Header) *loopSession {
	key := in.Key(i, h.socket.local)
	if heard != nil {
		key.Introduced = introducedBy(heard)
	}
	x := h.byClient[key]
	var tried lb.Tried
	if x != nil && x.head < 0 { // a session with datagrams in this batch is not replaced
		why := notEnded
		if x.cleared.isDue(s) {
			why = x.cleared.renew(s, x.client().Addr(), x.headers.usedBy())
		}
		if why == notEnded {
			why = s.replaces(x.s, x.endpoint, x.isRefused())
		}
		if why != notEnded {
			if why == endRefused && !x.named.isOver() {
				tried.Add(x.endpoint.ID)
			}
			x.end(why)
			x = nil
		}
	}
	if x == nil {
		if x = h.begin(s, key, in, i, heard, &tried); x == nil {
			return nil
		}
	}
	x.countRequests(in.Count(i))
	return x
}

// begin begins a session for the client of datagram i, if possible with an endpoint that is not in tried. heard is the
// PROXY header of the datagram, or nil. begin returns nil if no session can begin; the reason has then been logged.
func (h *udpShard) begin(s *service, key batch.Key, in *batch.Batch, i int, heard *proxyproto.Header,
	tried *lb.Tried) *loopSession {
	if h.draining {
		return nil
	}
	var x *loopSession
	var q *holding
	counted, ok := s.beginSession(clientBy(heard, clientOf(&in.Names[i])), in.Hops[i], tried, sessionOpener{
		takeRoom: func() bool {
			if s.spec.Load().sharesSockets() { // such a session has no descriptor of its own; its shared socket has one
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
			x.init(h, s, m, key, in, i, q, heard)
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
		x.s.log.Debug("session began", "client", x.client(), "endpoint", x.endpoint.Address())
	}
}

// retime sets the sessions' timers again if the idle timeout has changed.
func (h *udpShard) retime() {
	if h.draining || h.closed || h.suspended {
		return
	}
	spec := h.socket.service.Load().spec.Load()
	// The kernel must not join datagrams if each one counts as a request, if each one has a header, or if Lictor could
	// not learn their size.
	joins := spec.Requests <= 0 && spec.headerUse() == (headerUse{}) && !h.loop.denied.Has(sys.CallRecvmsg)
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

// drain prevents new sessions, and makes the existing ones expire soon.
func (h *udpShard) drain() {
	h.draining = true
	h.idle = h.socket.service.Load().spec.Load().sessionIdle(true)
	for x := h.ring.first; x != nil; x = x.next {
		h.loop.wheel.Set(&x.timer, x.used+h.idle)
	}
	h.emptied()
}

// emptied informs the socket when the last session of a draining shard has ended.
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

// clientOf returns a client's address. The address of an IPv4 client is an IPv4 address, even if the socket is an IPv6
// one.
func clientOf(sa *unix.RawSockaddrInet6) netip.AddrPort {
	a := sys.AddrPort(sa)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
