package proxy

import (
	"math"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file finds descriptors and ports for new clients when none are left, see budget.

// A holding counts the descriptors of one service's sessions in one shard. If a listener passes to another service, its
// shard keeps the former service's holding until the last session ends.
//
// A loop may take a descriptor from another loop's holding and use it at once. The other loop then owes a session: it
// soon ends one without returning that session's descriptor.
type holding struct {
	shard    *udpShard
	share    *share
	count    int64        // number of sessions with a descriptor; only the loop may access it
	held     atomic.Int64 // number of these descriptors that are not owed
	settling atomic.Bool  // whether a call of settle is posted
}

// holdingOf returns the holding for new sessions of s.
func (h *udpShard) holdingOf(s *service) *holding {
	q := h.holding.Load()
	if q == nil || q.share != s.share {
		q = &holding{shard: h, share: s.share}
		h.holding.Store(q)
	}
	return q
}

// reclaim must be called for each session of the holding that has ended. reclaim reports whether the caller gets the
// session's descriptor. If not, the descriptor was owed.
func (q *holding) reclaim() bool {
	q.count--
	for {
		n := q.held.Load()
		if n <= q.count {
			q.share.budget.endAdvance()
			return false
		}
		if q.held.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// makeRoom takes a descriptor for a new session of s. If the listener has its maximum of sessions, the session idle
// longest is ended, in whichever shard.
func (h *udpShard) makeRoom(s *service) bool {
	for h.socket.sessions.Load() >= int64(s.spec.Load().maxSessions()) {
		ended, passed := h.replace(s.share)
		if passed {
			return true
		}
		if !ended { // one session beyond the listener's maximum does not matter
			break
		}
	}
	return h.takeOne(s.share)
}

// takeOne takes a descriptor for the share to. If none is free, it ends the session idle longest among those that may
// be ended for other services.
func (h *udpShard) takeOne(to *share) bool {
	for !to.take(sessionDescriptors) {
		ended, passed := true, false
		if o := h.loop.victim(h.socket.engine, itsFloor, h); o != nil {
			passed = h.loop.free(o, to) // passed is false if another loop was quicker, or the session had no descriptor
		} else {
			ended, passed = h.replace(to)
		}
		if passed {
			return true
		}
		if !ended {
			return to.take(sessionDescriptors)
		}
	}
	return true
}

// replace ends the listener's session that has been idle longest. replace reports whether there was one, and whether
// the share to got its descriptor.
func (h *udpShard) replace(to *share) (ended, passed bool) {
	if o := h.eldest(); o != h && o.owe(to) {
		return true, true
	}
	if h.ring.first == nil {
		return false, false
	}
	return true, h.evict(h.ring.first, to)
}

// reclaim takes the descriptors of a TCP connection for the share to, from UDP services that have more than an equal
// part. It returns false if there are none, or if the share to would get more than an equal part.
func (l *eventLoop) reclaim(e *loopEngine, to *share) bool {
	if !to.belowEqual(pairDescriptors) {
		return false
	}
	for got := int64(0); got < pairDescriptors; {
		o := l.victim(e, equalPart, nil)
		if o == nil {
			to.release(got)
			return false
		}
		if l.free(o, to) {
			got++
		}
	}
	return true
}

// await stops accepting until s gets its turn for descriptors, or until UDP sessions can be ended for s.
func (d *acceptor) await(s *service) {
	s.warnOfWaiting()
	d.pauseFor(roomPoll)
	if d.waiting == nil {
		s.at(d.loop.id).descriptorWaits.Add(1)
		w := &waiter{share: s.share, n: pairDescriptors}
		w.granted = func() { d.loop.post(func() { d.resume(w) }) }
		d.waiting = w
		s.share.budget.wait(w)
	}
}

// resume accepts a client with the descriptors that w has waited for.
func (d *acceptor) resume(w *waiter) {
	if d.waiting == w {
		d.waiting = nil
	}
	t := d.socket.tenants.Load()
	if d.closed || t.service.share != w.share { // the listener now serves another service
		w.share.release(w.n)
	} else if exhausted(d.accept(t)) {
		return
	}
	d.watch()
}

// A search is a loop's search for sessions that may be ended for other clients.
type search struct {
	cursor
	near, far *udpShard // best shards found so far, of this loop and of the other loops
}

// victim returns the shard whose first session should be ended for another client, or nil if there is none. victim
// considers only services that exceed the bound m. Among these, victim chooses the session idle longest, or nearly, see
// perSearch. The shard own, unless it is nil, is always considered.
func (l *eventLoop) victim(e *loopEngine, m bound, own *udpShard) *udpShard {
	s := &l.search
	consider := func(h *udpShard) bool {
		best := &s.far
		if h.loop == l {
			best = &s.near
		}
		gives := h.gives(m)
		if gives && (*best == nil || h.idleSince() < (*best).idleSince()) {
			*best = h
		}
		return gives
	}
	for _, best := range []**udpShard{&s.near, &s.far} {
		if *best != nil && !(*best).gives(m) {
			*best = nil
		}
	}
	if own != nil {
		consider(own)
	}
	e.udp.scan(&s.cursor, l.now, s.near != nil || s.far != nil, consider)
	near, far := s.near, s.far
	switch {
	case far == nil || m != itsPorts && e.budget.advances.Load() <= 0:
		return near
	case near == nil || far.idleSince() < near.idleSince() && !near.willDo(far):
		return far
	}
	return near
}

// willDo reports whether the first session of h may be ended instead of that of far, which has been idle longer. Ending
// a session of another loop costs a wake-up, and one extra descriptor until the session has ended. In a flood of new
// clients all loops are full.
func (h *udpShard) willDo(far *udpShard) bool {
	now := h.loop.now
	return h.holding.Load().held.Load() >= manySessions && now-h.idleSince() > (now-far.idleSince())*7/8
}

const manySessions = 64

// gives reports whether h has a session that may be ended for others, of a service that exceeds m.
func (h *udpShard) gives(m bound) bool {
	q := h.holding.Load()
	return h.idleSince() != noSession && q.held.Load() > 0 && q.share.exceeds(m)
}

// eldest returns the shard of this listener whose first session should be ended: the session idle longest. eldest
// returns h if no other shard has a better one.
func (h *udpShard) eldest() *udpShard {
	eldest := h
	for _, o := range h.socket.shards {
		if o != h && o.holding.Load().held.Load() > 0 && o.idleSince() < eldest.idleSince() {
			eldest = o
		}
	}
	if eldest != h && h.willDo(eldest) {
		return h
	}
	return eldest
}

// free makes o end its first session, and reports whether the share to got the session's descriptor.
func (l *eventLoop) free(o *udpShard, to *share) bool {
	if o.loop != l {
		return o.owe(to)
	}
	return o.evict(o.ring.first, to)
}

// owe gives the share to a descriptor of this shard, and makes the shard end a session for it soon. owe returns false
// if there is no descriptor to give, or if too many are owed already. Any goroutine may call owe.
func (h *udpShard) owe(to *share) bool {
	q := h.holding.Load()
	if !q.share.budget.advance() {
		return false
	}
	for n := q.held.Load(); n > 0; n = q.held.Load() {
		if !q.held.CompareAndSwap(n, n-1) {
			continue
		}
		passed := q.share.pass(to, sessionDescriptors)
		if !q.settling.Swap(true) {
			h.loop.post(q.settle)
		}
		return passed
	}
	q.share.budget.endAdvance()
	return false
}

// settle ends as many sessions as the holding owes, less those that have ended by themselves. The session to be ended
// may have become active meanwhile. If another shard now has the session idle longest, settle passes the debt to that
// shard.
func (q *holding) settle() {
	q.settling.Store(false) // cleared first, because the loop below may miss a debt made from here on
	h, l := q.shard, q.shard.loop
	if h.suspended {
		h.unsettled = append(h.unsettled, q)
		return
	}
	for q.count > q.held.Load() {
		o := l.victim(h.socket.engine, itsFloor, h)
		if o == nil { // the debt was for a client of this listener, which had its maximum of sessions
			o = h.eldest()
		}
		if o != h && o.idleSince() < h.idleSince() && l.free(o, q.share) {
			q.held.Add(1)
			q.share.budget.endAdvance()
			continue
		}
		x := h.ring.first
		for x.holding != q {
			x = x.next
		}
		h.evict(x, q.share)
	}
}

// evict ends a session, and reports whether the share to got its descriptor.
func (h *udpShard) evict(x *loopSession, to *share) bool {
	x.s.at(h.loop.id).sessionsEvicted.Add(1)
	if x.head >= 0 && x.state == live {
		x.sendLast(h.loop.udp.in)
	}
	x.close(endEvicted)
	return x.holding != nil && x.holding.reclaim() && x.holding.share.pass(to, sessionDescriptors)
}

// makeRoomOneWay ends the shard's session that has been idle longest if the listener has its maximum of sessions. It
// looks only at this shard: a session without a descriptor only takes memory. A shard without sessions may exceed the
// limit by one, which does not matter.
func (h *udpShard) makeRoomOneWay(s *service) {
	x, full := h.ring.first, h.socket.sessions.Load() >= int64(s.spec.Load().maxSessions())
	if x != nil && full && h.evict(x, s.share) {
		s.share.release(sessionDescriptors)
	}
}

// portFor connects a socket for x when all ports to that address are in use. Before each attempt portFor ends a session
// that may be ended for others. If another loop has that session, x must wait, and portFor returns descriptor -1.
func (h *udpShard) portFor(x *loopSession, addr netip.AddrPort) (fd int32, err syscall.Errno) {
	err = unix.EAGAIN
	for ; x.ports < maxDials && err == unix.EAGAIN; x.ports++ {
		o := h.loop.victim(h.socket.engine, itsPorts, h)
		if o == nil {
			o = h.eldest()
		}
		if o.loop != h.loop {
			x.ports++
			x.awaitPort(o, addr)
			return -1, 0
		}
		if !o.freePort(x, x.s.share) {
			break
		}
		fd, err = sys.StartConnect(netip.Addr{}, addr, unix.SOCK_DGRAM)
	}
	return fd, err
}

// freePort ends the session of h that has been idle longest, for x, whose share is to. freePort returns false if h has
// no session but x.
func (h *udpShard) freePort(x *loopSession, to *share) bool {
	oldest := h.ring.first
	if oldest == nil || oldest == x || h.suspended {
		return false
	}
	if h.evict(oldest, to) {
		to.release(sessionDescriptors) // x already has a descriptor, so it needs no other
	}
	return true
}

// awaitPort makes the loop of o end a session and connect a socket for x right away, before anything takes the port.
func (x *loopSession) awaitPort(o *udpShard, addr netip.AddrPort) {
	// The other loop must not read x, which belongs to this loop.
	l, to, g, own := x.shard.loop, x.s.share, x.thisUse(), x.holding != nil
	if x.lookup == nil {
		x.lookup, x.state = &lookup{}, resolving
	}
	o.loop.post(func() {
		fd, err := int32(-1), unix.EAGAIN
		if o.freePort(x, to) && own { // without a descriptor of its own, x needs a shared socket
			fd, err = sys.StartConnect(netip.Addr{}, addr, unix.SOCK_DGRAM)
		}
		l.post(func() {
			switch {
			case g.isOver():
				if err == 0 {
					sys.Close(fd)
				}
			case err == unix.EAGAIN:
				x.connected(x.connectTo(addr))
			case err != 0:
				x.connected(x.dialError(err))
			default:
				x.connected(x.use(fd))
			}
		})
	})
}

// noSession is the idleSince of a shard that has no session to be ended.
const noSession = time.Duration(math.MaxInt64)

// idleSince returns the instant of the last use of the ring's first session, by the loops' clock.
func (h *udpShard) idleSince() time.Duration { return time.Duration(h.oldest.Load()) }

// aged updates the instant of the last use of the ring's first session.
func (h *udpShard) aged() {
	at := noSession
	if x := h.ring.first; x != nil && !h.suspended { // a session cannot be ended here while it is handed over
		at = x.used
	}
	h.oldest.Store(int64(at))
}
