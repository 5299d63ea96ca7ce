package proxy

import (
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/batch"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
	"github.com/lictor-proxy/lictor/proxy/internal/wheel"
)

// A loopSession pairs a UDP client with an endpoint, in a loop.
//
//	            connected                    idle, evicted, endpoint gone,
//	resolving -------------> live ----------------------------------------------> over
//	    |       (without a                    or all answers have come              ^
//	    |       host name: at once)                                                 |
//	    +---------------------------------------------------------------------------+
//
// A session has its own socket, connected to the endpoint. Therefore all datagrams that arrive at the session's socket
// belong to this client, and the kernel reports when the endpoint refuses datagrams (ICMP port unreachable). A one-way
// session, which expects no answers, uses a sharedSocket instead, unless the service is transparent.
type loopSession struct {
	timer      wheel.Timer
	shard      *udpShard
	s          *service
	endpoint   *lb.Member
	holding    *holding     // counts the session's descriptor; nil if it uses a sharedSocket
	prev, next *loopSession // neighbours in the shard's ring

	key        batch.Key
	serial     uint64                // see generation
	clientName unix.RawSockaddrInet6 // the address that answers go to: the client's, or that of the proxy before Lictor
	cleared    clearance
	began      time.Duration // when the session began, by the loop's clock
	used       time.Duration // when a datagram last moved in either direction
	shared     *sharedSocket // the socket of a session that shares one; otherwise nil
	lookup     *lookup       // state of the lookup while resolving; otherwise nil
	named      namedUse      // address in use, if the endpoint has a host name
	headers    *sessionHeaders

	requests, answers int64    // number of datagrams from the client, and from the endpoint
	sent              int64    // number of requests that were sent to the endpoint
	bytes             [2]int64 // number of bytes sent to the endpoint, and received from it
	answeredIn        uint64   // number of the loop's turn with the latest answers
	fd, number        int32
	head, tail        int16 // list of the session's datagrams in the current batch; a negative head means none
	state             sessionState
	dead              bool  // whether the endpoint has refused a datagram
	unsegmented       bool  // whether the kernel cannot cut messages into datagrams (see batch)
	joined            bool  // whether the kernel joins answers
	adopted           bool  // whether another process may hold the socket too
	hops              uint8 // hops that the datagrams must carry; 0 if the socket sets the right number
	six               bool  // whether the endpoint has an IPv6 address
	counted           bool  // whether service.countClient has counted the session
	ports             int8  // number of attempts to free a port for the session
}

type sessionState int8

const (
	resolving sessionState = iota
	live
	over
)

// answersPerTurn is how many answers of a session a loop reads in one turn.
const answersPerTurn = 16

// newSession returns a session whose fields the caller must set.
func (l *eventLoop) newSession() *loopSession {
	if n := len(l.udp.sessions); n > 0 {
		x := l.udp.sessions[n-1]
		l.udp.sessions = l.udp.sessions[:n-1]
		return x
	}
	return new(loopSession)
}

// init begins the use of a session for datagram i, whose PROXY header was heard; nil if it had none. The session's
// descriptor counts in q.
func (x *loopSession) init(h *udpShard, s *service, e *lb.Member, key batch.Key, in *batch.Batch, i int, q *holding,
	heard *proxyproto.Header) {
	*x = loopSession{
		shard: h, s: s, endpoint: e, holding: q, key: key, clientName: in.Names[i], began: h.loop.now, used: h.loop.now,
		fd: -1, head: -1, serial: h.loop.newSerial(),
	}
	if in.Hops[i] > 0 { // Hops is at least 2, see begin
		x.hops = in.Hops[i] - 1
	}
	x.timer.Owner = x
	client := clientBy(heard, clientOf(&x.clientName))
	if use := x.cleared.begin(s, client.Addr(), heard != nil); use != (headerUse{}) {
		x.headers = newSessionHeaders(use, x.hop(), heard)
	}
}

// isRefused reports whether the endpoint has refused a datagram. The next datagram should then go to another endpoint,
// or to another address of the endpoint's host name.
func (x *loopSession) isRefused() bool {
	return x.dead || x.shared != nil && x.shared.dead || x.named.isOver()
}

// refuse records that the endpoint cannot be reached.
func (x *loopSession) refuse(err error) {
	if !x.dead {
		x.dead = true
		if x.shared != nil {
			x.shared.refuse(err)
		} else {
			x.s.addressFailed(x.shard.socket.engine.resolver, x.endpoint, x.named, err)
		}
	}
}

// touch records that a datagram moved.
func (x *loopSession) touch() {
	h := x.shard
	front := h.ring.first == x
	x.used = h.loop.now
	h.ring.toBack(x)
	if front {
		h.aged()
	}
}

// countRequests records that the client has sent n datagrams. When a session has all the requests that it may have, its
// client's next datagram begins another session.
func (x *loopSession) countRequests(n int) {
	x.touch()
	x.requests += int64(n)
	if x.s.spec.Load().isFull(x.requests) {
		x.unbind()
	}
}

// unbind lets the client's next datagram begin another session. This session still forwards answers.
func (x *loopSession) unbind() {
	if x.shard.byClient[x.key] == x {
		delete(x.shard.byClient, x.key)
	}
}

// forward sends the session's datagrams of the batch to the endpoint. Datagrams that the endpoint refuses go to another
// endpoint.
func (x *loopSession) forward(in *batch.Batch) {
	h, s := x.shard, x.s
	i := x.head
	x.head = -1
	var tried lb.Tried
	for tries := 0; ; tries++ {
		// The session may have been ended for another client of this batch; evict has sent or queued its datagrams.
		if x.state == over {
			break
		}
		var err syscall.Errno
		if i, err = x.sendFrom(in, i); i < 0 {
			x.finished()
			return
		}
		x.refuse(os.NewSyscallError("send", err))
		if tries == maxDials-1 {
			break
		}
		if !x.named.isOver() {
			tried.Add(x.endpoint.ID)
		}
		x.end(endRefused)
		if x = h.begin(s, x.key, in, int(i), x.headers.again(), &tried); x == nil {
			break
		}
		x.countRequests(in.CountFrom(i))
	}
	s.at(h.loop.id).datagramsDropped.Add(int64(in.CountFrom(i)))
}

// sendLast sends the session's datagrams of the current batch before the session is ended for another client. sendLast
// does not try another endpoint.
func (x *loopSession) sendLast(in *batch.Batch) {
	i := x.head
	x.head = -1
	if i, err := x.sendFrom(in, i); i >= 0 {
		x.refuse(os.NewSyscallError("send", err))
		x.s.at(x.shard.loop.id).datagramsDropped.Add(int64(in.CountFrom(i)))
	}
}

// sendFrom sends the datagrams from place i on. sendFrom stops at a datagram that the endpoint refuses, and returns its
// place. The place is negative if none was refused.
func (x *loopSession) sendFrom(in *batch.Batch, i int16) (int16, syscall.Errno) {
	switch {
	case x.state == resolving:
		for ; i >= 0; i = in.Next[i] {
			x.enqueue(in, int(i))
		}
		return -1, 0
	case x.headers != nil:
		return x.sendWithHeaders(in, i)
	}
	return x.sendAll(in, i, 0)
}

// sendAll is sendFrom for a session that is live. Each datagram begins with a header of the given size in bytes, which
// is not counted as the client's.
func (x *loopSession) sendAll(in *batch.Batch, i int16, header int) (int16, syscall.Errno) {
	c := x.s.at(x.shard.loop.id)
	hops, left := x.hopsOf(in, i)
	if !left {
		x.s.outOfHops(x.client())
		c.datagramsDropped.Add(int64(in.CountFrom(i)))
		return -1, 0
	}
	sent, bytes, dropped := 0, 0, 0
	defer func() {
		bytes -= sent * header
		x.sent += int64(sent)
		x.bytes[clientSide] += int64(bytes)
		c.datagramsUp.Add(int64(sent))
		c.bytesUp.Add(int64(bytes))
		if dropped > 0 {
			c.datagramsDropped.Add(int64(dropped))
		}
	}()
	if in.Next[i] < 0 && in.Segment(int(i)) == 0 && hops == 0 { // one datagram: the usual case
		n := in.Len(int(i))
		switch err := sys.SendDatagram(x.fd, in.Payload(int(i))); {
		case err == 0:
			sent, bytes = 1, n
		case isRefusalErrno(err):
			return i, err
		default: // a full buffer or a filter: any hop may lose a datagram
			dropped = 1
		}
		return -1, 0
	}
	w := &x.shard.loop.udp.up
	w.Clear()
	for ; i >= 0; i = in.Next[i] {
		w.Add(batch.Parcel{
			Base: in.Base(int(i)), Size: in.Len(int(i)), Segment: in.Segment(int(i)),
			Plain: &x.unsegmented, Place: i, Hops: hops, Six: x.six,
		})
	}
	for w.More() {
		n, err := w.Send(x.fd)
		sent, bytes = sent+n.Datagrams, bytes+n.Bytes
		if hops > 0 && sys.IsDenial(err) {
			n, err = x.sendWithoutHops(hops, err)
			sent, bytes, hops = sent+n.Datagrams, bytes+n.Bytes, 0
		}
		if isRefusalErrno(err) {
			return w.Front().Place, err
		}
		if err != 0 {
			dropped += w.Skip()
		}
	}
	return -1, 0
}

// enqueue keeps a datagram until the session is connected.
func (x *loopSession) enqueue(in *batch.Batch, i int) {
	c := x.s.at(x.shard.loop.id)
	for b := range in.Each(i) {
		header := x.headers.next()
		if len(x.lookup.queue) == maxQueue || len(header) > 0 && len(header)+len(b) > maxPayload {
			c.datagramsDropped.Add(1)
			continue
		}
		x.lookup.queue = append(x.lookup.queue, slices.Concat(header, b))
		if x.headers != nil {
			x.headers.delivered()
		}
		x.sent++
		x.bytes[clientSide] += int64(len(b))
		c.datagramsUp.Add(1)
		c.bytesUp.Add(int64(len(b)))
	}
}

// ready implements pollable. Answers have arrived, or the endpoint refuses datagrams.
func (x *loopSession) ready(int, uint32) {
	if x.state != live {
		return
	}
	l := x.shard.loop
	l.relays = true
	busy := x.joined || x.answeredIn+1 == l.turnNumber
	x.answeredIn = l.turnNumber
	n, err := l.udp.down.receive(x, busy)
	switch {
	case err == unix.EAGAIN:
		return
	case isRefusalErrno(err):
		x.refuse(os.NewSyscallError("recv", err))
		return
	case err != 0:
		x.s.at(x.shard.loop.id).datagramsDropped.Add(1)
		return
	}
	if n > 1 && !x.joined {
		x.joined = true
		sys.SetOption(x.fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	}
	if x.answers == 0 {
		x.endpoint.Reached()
		x.named.reached(x.shard.socket.engine.resolver)
	}
	x.answers += int64(n)
	x.touch()
	x.finished()
}

// finished ends the session if it needs nothing more: it has all its answers, or it is one-way and can get no requests.
func (x *loopSession) finished() {
	if x.state != live {
		return
	}
	switch spec := x.s.spec.Load(); {
	case spec.isAnswered(x.requests, x.answers):
		x.end(endAnswered)
	case spec.isOneWay() && x.shard.byClient[x.key] != x:
		x.end(endSent)
	}
}

// Timeout implements wheel.Owner. Datagrams do not move the timer: when it fires, Timeout checks whether one moved
// meanwhile, and if so sets the timer again.
func (x *loopSession) Timeout() {
	h := x.shard
	if at := x.used + h.idle; at > h.loop.now {
		h.loop.wheel.Set(&x.timer, at)
		return
	}
	x.end(silentSession(x.isRefused(), h.draining))
}

// end ends the session.
func (x *loopSession) end(why endReason) {
	if x.state != over {
		x.close(why)
		if q := x.holding; q != nil && q.reclaim() {
			q.share.release(sessionDescriptors)
		}
	}
}

// close ends the session. The caller must release its descriptor.
func (x *loopSession) close(why endReason) {
	h := x.shard
	if x.s.observed() {
		r := x.summary()
		x.s.ended(&r, why, nil)
	}
	switch {
	case x.shared != nil:
		x.shared.done()
	case x.state == live:
		if x.adopted {
			h.loop.unwatch(x.fd)
		}
		h.loop.discard(x.fd)
	}
	x.unbind()
	front := h.ring.first == x
	h.ring.remove(x)
	if front {
		h.aged()
	}
	h.loop.wheel.Clear(&x.timer)
	x.state, x.serial, x.fd, x.lookup = over, 0, -1, nil
	x.endpoint.Done()
	if x.counted {
		x.s.uncount(x.client())
	}
	h.socket.sessions.Add(-1)
	x.s.at(h.loop.id).sessionsActive.Add(-1)
	h.loop.release(x.number)
	h.emptied()
}

// summary describes the session for reports.
func (x *loopSession) summary() report {
	return report{
		client: x.client(), listener: x.shard.socket.Addr(), endpoint: x.endpoint,
		age: x.shard.loop.now - x.began,
		up:  x.bytes[clientSide], down: x.bytes[serverSide], datagramsUp: x.sent, datagramsDown: x.answers,
	}
}

// A sessionRing lists the sessions of a shard. The session idle longest is first.
type sessionRing struct{ first, last *loopSession }

func (r *sessionRing) push(x *loopSession) {
	x.prev, x.next = r.last, nil
	if r.last != nil {
		r.last.next = x
	} else {
		r.first = x
	}
	r.last = x
}

func (r *sessionRing) remove(x *loopSession) {
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		r.first = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	} else {
		r.last = x.prev
	}
	x.prev, x.next = nil, nil
}

func (r *sessionRing) toBack(x *loopSession) {
	if r.last != x {
		r.remove(x)
		r.push(x)
	}
}
