package proxy

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/internal/deadline"
	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// A session pairs a UDP client with an endpoint. The session's socket is connected to the endpoint, so every datagram
// from the socket belongs to this client. The kernel also reports on this socket that the endpoint refuses (ICMP port
// unreachable).
//
// The listener's goroutine sends the client's datagrams. Each session has a goroutine, replies, which reads the
// answers. The replies goroutine holds a buffer only while it handles an answer.
type session struct {
	socket   *udpSocket
	service  *service
	key      sessionKey
	endpoint *lb.Member
	// source is the control message that makes answers leave from the address that the client dialled. source is nil if
	// the listener has only one address.
	source []byte

	hops     uint8                    // hop limit towards the endpoint, see sys.Hops; 0 means the system's default
	refused  atomic.Bool              // the endpoint refused a datagram
	named    atomic.Pointer[namedUse] // set once a session of a host name has an address
	asked    atomic.Int64             // number of datagrams of the client; negative once all answers have come
	spent    atomic.Bool              // all datagrams of the session are sent; it remains only to see a refusal
	began    time.Duration
	rosterAt int             // the session's place in the roster
	counted  bool            // service.countClient has counted the session
	cleared  clearance       // only the listener's goroutine uses it
	headers  *sessionHeaders // only the listener's goroutine uses what may change in it

	// Sent to the endpoint, and received from the endpoint.
	datagramsUp, datagramsDown atomic.Int64
	bytesUp, bytesDown         atomic.Int64

	last   atomic.Int64 // when a datagram last moved in either direction; nanoseconds of the socket's clock
	listed atomic.Int64 // value of last when the session got its place in the table's list

	prev, next *session // links in the table's list; guarded by the table

	io     transport
	usable atomic.Bool // whether io may be used without mu
	mu     sync.Mutex  // guards what follows, and io until usable is true
	queue  [][]byte    // datagrams that wait for the lookup of the endpoint's host name
	gone   bool        // whether the session is closed

	ended chan struct{} // closed when replies has ended
}

func newSession(u *udpSocket, s *service, key sessionKey, e *lb.Member) *session {
	x := &session{socket: u, service: s, key: key, endpoint: e, began: u.now(), ended: make(chan struct{})}
	if key.local.IsValid() {
		x.source = sys.SourceControl(key.local)
	}
	return x
}

// openHeaders makes the PROXY headers of a new session. heard is the header of its first datagram, or nil.
func (x *session) openHeaders(heard *proxyproto.Header) {
	use := x.cleared.begin(x.service, clientBy(heard, x.key.client).Addr(), heard != nil)
	if use == (headerUse{}) {
		return
	}
	x.headers = newSessionHeaders(use, hop{client: x.key.client, server: listenedAt(x.socket.addr, x.key.local),
		id: x.socket.engine.clients.Add(1), udp: true}, heard)
}

// client returns the session's client. x.key.client is the address that answers go to.
func (x *session) client() netip.AddrPort { return x.headers.client(x.key.client) }

// connect opens the socket to the endpoint. If the endpoint's host name must be looked up first, connect does nothing,
// and replies opens the socket.
func (x *session) connect() error {
	if x.endpoint.Host == "" {
		spec := x.service.spec.Load()
		if err := spec.unfit(x.endpoint, x.key.client.Addr(), x.endpoint.Addr.Addr()); err != nil {
			return err
		}
		return x.open(spec, x.endpoint.Addr)
	}
	if addrs, ok := x.socket.engine.resolver.Known(x.endpoint.Host); ok {
		return x.openAny(addrs)
	}
	return nil
}

// openAny opens the socket to the first possible address of the endpoint's host name.
func (x *session) openAny(addrs []netip.Addr) error {
	spec := x.service.spec.Load()
	addrs, err := x.service.admitted(spec, x.endpoint, x.key.client.Addr(), addrs)
	r := x.socket.engine.resolver
	for _, a := range r.Order(lb.UDP, x.endpoint.Endpoint, addrs) {
		at := netip.AddrPortFrom(a, x.endpoint.Addr.Port())
		use := useNamed(r, at)
		x.named.Store(&use)
		if err = x.open(spec, at); err == nil {
			break
		}
	}
	return err
}

// isOver reports whether the client's next datagram needs another session, and whether that session may use the same
// endpoint.
func (x *session) isOver() (refused, sameEndpoint bool) {
	n := x.namedUse()
	return x.refused.Load() || n.isOver(), n.isOver()
}

func (x *session) namedUse() namedUse {
	if n := x.named.Load(); n != nil {
		return *n
	}
	return namedUse{}
}

func (x *session) open(spec *Service, addr netip.AddrPort) error {
	c, err := spec.dialUDP(x.key.client.Addr(), addr)
	if err != nil {
		return err
	}
	x.socket.engine.denied.GrowReceiveBufferConn(c, socketBuffer)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.gone {
		c.Close()
		return net.ErrClosed
	}
	if err := x.io.use(c); err != nil {
		c.Close()
		return err
	}
	if x.hops > 0 {
		sys.SetHopsConn(c, addr.Addr().Unmap().Is6(), x.hops)
	}
	for _, b := range x.queue {
		_ = x.io.send(b) // the network may lose any datagram; a lasting fault shows at the next one
	}
	x.queue = nil
	x.usable.Store(true)
	return nil
}

// resolve looks up the endpoint's host name and opens the socket.
func (x *session) resolve() error {
	ctx, cancel := deadline.WithTimeout(x.socket.ctx, x.service.spec.Load().connectTimeout())
	defer cancel()
	addrs, err := x.socket.engine.resolver.Lookup(ctx, x.endpoint.Host)
	if err != nil {
		return err
	}
	return x.openAny(addrs)
}

// send sends one datagram to the endpoint, with the session's PROXY header if there is one. send never blocks. Only the
// listener's goroutine calls it.
func (x *session) send(b []byte) error {
	header := x.headers.next()
	if header == nil {
		return x.sendWhole(b)
	}
	if len(header)+len(b) > maxPayload {
		return errTooLong
	}
	x.socket.out = append(append(x.socket.out[:0], header...), b...)
	err := x.sendWhole(x.socket.out)
	if err == nil {
		x.headers.delivered()
	}
	return err
}

var errTooLong = errors.New("the datagram is too long with its PROXY header")

// sendWhole sends one datagram to the endpoint as it is.
func (x *session) sendWhole(b []byte) error {
	if x.usable.Load() {
		return x.io.send(b)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.usable.Load():
		return x.io.send(b)
	case x.gone:
		return net.ErrClosed
	case len(x.queue) == maxQueue:
		return errQueueFull
	}
	x.queue = append(x.queue, slices.Clone(b))
	return nil
}

var errQueueFull = errors.New("too many datagrams wait for the lookup of a host name")

// replies reads the endpoint's answers and sends them to the client, until the session ends.
func (x *session) replies() {
	defer close(x.ended)
	if !x.usable.Load() {
		if err := x.resolve(); err != nil {
			x.refuse(err)
			return
		}
	}
	c, reached := x.service.at(0), x.datagramsDown.Load() > 0
	for {
		b, err := x.io.receive()
		switch {
		case err == nil && !reached:
			reached = true
			x.endpoint.Reached()
			x.namedUse().reached(x.socket.engine.resolver)
		case err == nil:
		case isRefusal(err):
			x.refuse(err)
			continue
		case errors.Is(err, net.ErrClosed):
			if x.socket.stand(x) {
				continue
			}
			return
		default:
			c.datagramsDropped.Add(1)
			if !sleep(x.socket.ctx.Done(), minBackoff) {
				return
			}
			continue
		}
		spec := x.service.spec.Load()
		if spec.isOneWay() { // the answer is discarded
			b.free()
			continue
		}
		x.datagramsDown.Add(1)
		x.bytesDown.Add(int64(b.n))
		// A datagram that cannot be sent to the client is lost, as it could be on any hop.
		err = x.socket.answer(b.payload(), x.source, x.key.client)
		if err == nil {
			c.datagramsDown.Add(1)
			c.bytesDown.Add(int64(b.n))
			x.socket.sessions.touch(x, x.socket.now())
		} else {
			c.datagramsDropped.Add(1)
		}
		b.free()
		if x.complete(spec) {
			x.socket.end(x, endAnswered)
			return
		}
	}
}

// ask counts a datagram of the client before it is sent to the endpoint. ask returns false if the session is complete.
func (x *session) ask() bool { return x.asked.Add(1) > 0 }

// lapse makes ask return false from now on, if no datagram has moved after the time last. Otherwise lapse returns
// false. A session therefore either ends because it is idle, or sends a datagram of the client. The order matters: the
// sender touches the session before it asks, and lapse reads the number of datagrams before the time.
func (x *session) lapse(last time.Duration) bool {
	asked := x.asked.Load()
	return time.Duration(x.last.Load()) <= last && x.asked.CompareAndSwap(asked, math.MinInt64)
}

// complete reports whether all answers that the client may expect have come. After that ask returns false, because the
// answer to a later datagram would be lost.
func (x *session) complete(spec *Service) bool {
	for {
		asked := x.asked.Load()
		if !spec.isAnswered(asked, x.datagramsDown.Load()) {
			return false
		}
		if x.asked.CompareAndSwap(asked, math.MinInt64) {
			return true
		}
	}
}

// refuse records that the endpoint cannot be reached. The client's next datagram goes to another endpoint.
func (x *session) refuse(err error) {
	if !x.refused.Swap(true) {
		x.service.addressFailed(x.socket.engine.resolver, x.endpoint, x.namedUse(), err)
	}
}

// close closes the session's socket, which ends replies. close returns false if the session was closed before.
func (x *session) close(why endReason) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.gone {
		return false
	}
	x.gone = true
	if x.io.conn != nil {
		x.io.conn.Close()
	}
	x.endpoint.Done()
	if x.counted {
		x.service.uncount(x.client())
	}
	x.service.at(0).sessionsActive.Add(-1)
	if x.service.observed() {
		if x.spent.Load() && why != endHanded {
			why = endSent // the session ended when all was sent, even if that is noticed later
		}
		r := x.summary()
		x.service.ended(&r, why, nil)
	}
	return true
}

// summary returns the report of the session.
func (x *session) summary() report {
	return report{
		client: x.client(), listener: x.socket.Addr(), endpoint: x.endpoint, age: x.socket.now() - x.began,
		up: x.bytesUp.Load(), down: x.bytesDown.Load(),
		datagramsUp: x.datagramsUp.Load(), datagramsDown: x.datagramsDown.Load(),
	}
}

// countSent counts what is sent to the endpoint. Negative numbers undo the count of what could not be sent.
func (x *session) countSent(datagrams, bytes int) {
	x.datagramsUp.Add(int64(datagrams))
	x.bytesUp.Add(int64(bytes))
}

// A datagram is a received datagram in a pooled buffer.
type datagram struct {
	buf [maxDatagram]byte
	n   int
}

func (d *datagram) payload() []byte { return d.buf[:d.n] }

var datagramPool = sync.Pool{New: func() any { return new(datagram) }}

func (d *datagram) free() { datagramPool.Put(d) }
