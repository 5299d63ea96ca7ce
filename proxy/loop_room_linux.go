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

// This is how loops find descriptors for new clients, and ports, when there are none left, see budget.

// A holding is the descriptors of the sessions that one service has in one shard. A shard whose listener has changed
// hands has other holdings for the sessions of former services, until these end.
//
// A loop that needs a descriptor may get one from another loop, which then owes one of a holding. The descriptor is
// used at once. The loop that owes it ends a session soon, without giving back the descriptor of that.
type holding struct {
	shard    *udpShard
	share    *share
	count    int64        // sessions that have a descriptor; belongs to the loop
	held     atomic.Int64 // of these descriptors, those that are not owed
	settling atomic.Bool  // settle is posted
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

// reclaim is called for each session of the holding that has ended. It reports whether its descriptor is the caller's.
// If not, it was owed.
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

// makeRoom takes a descriptor for one more session of s. If the listener has as many sessions as it may, the one idle
// longest ends, whichever shard has it.
func (h *udpShard) makeRoom(s *service) bool {
	for h.socket.sessions.Load() >= int64(s.spec.Load().maxSessions()) {
		ended, passed := h.replace(s.share)
		if passed {
			return true
		}
		if !ended { // one more than there should be does not matter
			break
		}
	}
	return h.takeOne(s.share)
}

// takeOne takes a descriptor for to. If there is none, the session idle longest ends, of those that can end for others.
func (h *udpShard) takeOne(to *share) bool {
	for !to.take(sessionDescriptors) {
		ended, passed := true, false
		if o := h.loop.victim(h.socket.engine, itsFloor, h); o != nil {
			passed = h.loop.free(o, to) // if not, others were quicker, or the session had no descriptor
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

// replace has the session of the listener end that has been idle longest. It tells whether there was one, and
// whether to has its descriptor now.
func (h *udpShard) replace(to *share) (ended, passed bool) {
	if o := h.eldest(); o != h && o.owe(to) {
		return true, true
	}
	if h.ring.first == nil {
		return false, false
	}
	return true, h.evict(h.ring.first, to)
}

// reclaim takes the descriptors of a TCP connection for to, from UDP services that have more than an equal part. It
// returns false if there are none, or if to would have more than an equal part.
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

// await takes no clients until it is the turn of s, or UDP sessions can end for it.
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

// resume takes a client with the descriptors that w has waited for.
func (d *acceptor) resume(w *waiter) {
	if d.waiting == w {
		d.waiting = nil
	}
	s := d.socket.service.Load()
	if d.closed || s.share != w.share { // the listener has changed hands
		w.share.release(w.n)
	} else if exhausted(d.accept(s)) {
		return
	}
	d.watch()
}

// A search is where a loop looks for sessions that can end for others.
type search struct {
	cursor
	near, far *udpShard // the best that were found, of this loop and of others
}

// victim returns the shard whose first session should end for others: the one idle longest, or nearly, see
// perSearch, of those whose services exceed m. It is nil if none was found. The shard own, unless it is nil, is
// looked at in any case.
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

// willDo tells whether the first session of h may end instead of that of far, which has been idle longer. In a flood
// all loops are full, and to have another loop end a session costs a wake-up, and one descriptor more until it has.
func (h *udpShard) willDo(far *udpShard) bool {
	now := h.loop.now
	return h.holding.Load().held.Load() >= manySessions && now-h.idleSince() > (now-far.idleSince())*7/8
}

const manySessions = 64

// gives tells whether h has a session that can end for others, of a service that exceeds m.
func (h *udpShard) gives(m bound) bool {
	q := h.holding.Load()
	return h.idleSince() != noSession && q.held.Load() > 0 && q.share.exceeds(m)
}

// eldest returns the shard of this listener whose first session should end: the one idle longest, of those that can.
// If there is no other, it is h.
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

// free has the first session of o end, and tells whether to has its descriptor now.
func (l *eventLoop) free(o *udpShard, to *share) bool {
	if o.loop != l {
		return o.owe(to)
	}
	return o.evict(o.ring.first, to)
}

// owe gives to one of the descriptors of this shard, and has a session end for it soon. It returns false if there is
// none to give, or if too many are owed already. Any goroutine may call it.
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

// settle ends as many sessions as are owed, less those that have ended by themselves. The session idle longest may
// have moved something meanwhile. If another shard has the one idle longest by now, the debt is passed on to that
// shard.
func (q *holding) settle() {
	q.settling.Store(false) // first: what is owed from here on may not be seen below
	h, l := q.shard, q.shard.loop
	if h.suspended {
		h.unsettled = append(h.unsettled, q)
		return
	}
	for q.count > q.held.Load() {
		o := l.victim(h.socket.engine, itsFloor, h)
		if o == nil { // the debt was for a client of this listener, which had as many sessions as it may
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

// evict ends a session, and tells whether to has its descriptor now.
func (h *udpShard) evict(x *loopSession, to *share) bool {
	x.s.at(h.loop.id).sessionsEvicted.Add(1)
	if x.head >= 0 && x.state == live {
		x.sendLast(h.loop.udp.in)
	}
	x.close(endEvicted)
	return x.holding != nil && x.holding.reclaim() && x.holding.share.pass(to, sessionDescriptors)
}

// makeRoomOneWay ends the session idle longest if there are too many. It looks only here: a session without a
// descriptor is no more than memory, and one more than there should be for each loop that has none yet does not
// matter.
func (h *udpShard) makeRoomOneWay(s *service) {
	x, full := h.ring.first, h.socket.sessions.Load() >= int64(s.spec.Load().maxSessions())
	if x != nil && full && h.evict(x, s.share) {
		s.share.release(sessionDescriptors)
	}
}

// portFor connects a socket for x though all ports for it are in use: for each try a session ends, of those that can
// end for others. If another loop has that session, x has to wait; the descriptor is -1 then.
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
		fd, err = sys.StartConnect(addr, unix.SOCK_DGRAM)
	}
	return fd, err
}

// freePort ends the session of h that has been idle longest, for x, whose share is to. It returns false if there is no
// other than x.
func (h *udpShard) freePort(x *loopSession, to *share) bool {
	oldest := h.ring.first
	if oldest == nil || oldest == x || h.suspended {
		return false
	}
	if h.evict(oldest, to) {
		to.release(sessionDescriptors) // x has one
	}
	return true
}

// awaitPort has the loop of o connect a socket for x, when it has ended a session: nothing else takes the port there.
func (x *loopSession) awaitPort(o *udpShard, addr netip.AddrPort) {
	l, to, g, own := x.shard.loop, x.s.share, x.thisUse(), x.holding != nil // of x nothing else: it is this loop's
	if x.lookup == nil {
		x.lookup, x.state = &lookup{}, resolving
	}
	o.loop.post(func() {
		fd, err := int32(-1), unix.EAGAIN
		if o.freePort(x, to) && own { // else x needs a shared socket
			fd, err = sys.StartConnect(addr, unix.SOCK_DGRAM)
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

// noSession stands for a shard that has no session that can end.
const noSession = time.Duration(math.MaxInt64)

// idleSince returns since when the session at the front of the ring has been idle, by the loops' clock.
func (h *udpShard) idleSince() time.Duration { return time.Duration(h.oldest.Load()) }

// aged notes when the session at the front of the ring was last used.
func (h *udpShard) aged() {
	at := noSession
	if x := h.ring.first; x != nil && !h.suspended { // what is about to be another process's cannot end here
		at = x.used
	}
	h.oldest.Store(int64(at))
}
