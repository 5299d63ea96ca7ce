package admin

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// slots bounds the connections of a Server, over all its listeners. Every connection is accepted at once: none
// waits in the kernel's queue. If no slot is free, the new connection takes the slot of another one, which is closed;
// see rankLocked. A new connection is refused only if requests that may not be interrupted are under way on all others.
//
// netutil.LimitListener of golang.org/x/net is no substitute: it stops accepting at the limit. Then a stranger with
// idle connections could lock the operator out, who would wait in the kernel's queue behind them.
//
// Safe for concurrent use.
type slots struct {
	most    int
	stalled time.Duration // an operator's request that is under way for longer may be interrupted
	log     hclog.Logger

	mu      sync.Mutex
	open    map[*slotConn]struct{}
	evicted complaint // closed to make room
	refused complaint // closed at once
}

func newSlots(most int, stalled time.Duration, log hclog.Logger) *slots {
	return &slots{most: most, stalled: stalled, log: log, open: map[*slotConn]struct{}{}}
}

// A standing says what is known of a connection's peer. The higher it is, the later its slot is given to others.
type standing int

const (
	remoteStranger standing = iota // another host that has not shown the token
	localStranger                  // this host, likewise
	operator                       // the last request passed the guard, or the listener is a Unix socket
)

// A phase says what a connection is used for at this moment.
type phase int

const (
	waiting   phase = iota // for a request, or for the rest of its header
	answering              // a request is under way
	kept                   // likewise, but it takes long on purpose and may not be interrupted
)

// A peer is who connects: an IPv4 address, or the 64 bits of an IPv6 address that one network has. The zero peer is
// whoever may open the Unix socket.
type peer struct{ netip.Prefix }

// peerOf returns the peer at a, and whether it is on this host.
func peerOf(a net.Addr) (p peer, local bool) {
	tcp, is := a.(*net.TCPAddr)
	if !is {
		return peer{}, true
	}
	addr, bits := tcp.AddrPort().Addr().Unmap(), 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // it fails only for bits that are too many
	return peer{prefix}, addr.IsLoopback()
}

func (p peer) String() string {
	switch {
	case !p.IsValid():
		return "unix socket"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.Prefix.String()
}

// A slotConn is a connection that has a slot until it is closed.
type slotConn struct {
	net.Conn
	slots *slots
	peer  peer
	local bool     // the peer is on this host
	base  standing // of the peer, whatever it asks

	// The following are guarded by slots.mu.
	standing standing
	phase    phase
	since    time.Time // of the phase
}

// listener returns l with its connections in slots.
func (s *slots) listener(l net.Listener) net.Listener { return &slotListener{l, s} }

type slotListener struct {
	net.Listener
	slots *slots
}

// Accept implements net.Listener.
func (l *slotListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.slots.admit(conn); c != nil {
			return c, nil
		}
	}
}

// admit gives conn a slot. If there is none, it refuses and closes conn, and returns nil.
func (s *slots) admit(conn net.Conn) *slotConn {
	now := time.Now()
	c := &slotConn{Conn: conn, slots: s, since: now}
	switch c.peer, c.local = peerOf(conn.RemoteAddr()); {
	case c.peer == peer{}:
		c.base = operator
	case c.local:
		c.base = localStranger
	}
	c.standing = c.base

	loser, unsaid := s.place(c, now)
	switch loser {
	case nil:
	case c:
		refuseConn(conn)
		c = nil
	default:
		_ = loser.Conn.Close()
	}
	if unsaid > 0 { // after all else, for a log may take its time
		s.complain(loser.peer, c == nil, unsaid)
	}
	return c
}

// place gives c a slot, if there is one. It returns the connection that has none now: another one, c, or nil. Unsaid
// is how many of its kind the log does not know of; zero if it need not.
func (s *slots) place(c *slotConn, now time.Time) (loser *slotConn, unsaid int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) < s.most {
		s.open[c] = struct{}{}
		return nil, 0
	}
	victim := s.victimLocked(now)
	if victim == nil {
		return c, s.refused.add(now)
	}
	delete(s.open, victim)
	s.open[c] = struct{}{}
	return victim, s.evicted.add(now)
}

// complain logs that n connections were refused or evicted, the last of them from p.
func (s *slots) complain(p peer, refused bool, n int64) {
	text := "connections to the admin API closed to make room: there are as many as it may have"
	if refused {
		text = "connections to the admin API refused: requests are under way on all that it may have"
	}
	s.log.Warn(text, "connections", s.most, "closed", n, "peer", p.String())
}

// never is the rank of a connection that keeps its slot.
const never = 2 * (int(operator) + 1)

// rankLocked is lower the sooner c gives its slot away. Peers that have not shown the token come first, and of these
// the remote ones; of equal peers, those on which no request is under way (RFC 9112 9.3 allows to close these at any
// time). Operators' requests are interrupted only if they are stalled, such as by a client that does not read its
// answer.
func (s *slots) rankLocked(c *slotConn, now time.Time) int {
	switch {
	case c.phase == kept:
		return never
	case c.phase == answering && c.standing == operator && now.Sub(c.since) < s.stalled:
		return never
	}
	return 2*int(c.standing) + int(c.phase)
}

// victimLocked returns the connection that gives its slot away, or nil. Among those of the lowest rank it is of the
// peer with the most connections, so that no peer takes the slots of others; and of that, the one longest in its
// phase.
func (s *slots) victimLocked(now time.Time) *slotConn {
	lowest, count := never, map[peer]int{}
	for c := range s.open {
		count[c.peer]++
		lowest = min(lowest, s.rankLocked(c, now))
	}
	if lowest == never {
		return nil
	}
	var victim *slotConn
	for c := range s.open {
		if s.rankLocked(c, now) != lowest {
			continue
		}
		if victim == nil || count[c.peer] > count[victim.peer] ||
			count[c.peer] == count[victim.peer] && c.since.Before(victim.since) {
			victim = c
		}
	}
	return victim
}

// Close gives the slot back. An evicted connection has none any more.
func (c *slotConn) Close() error {
	c.slots.mu.Lock()
	delete(c.slots.open, c)
	c.slots.mu.Unlock()
	return c.Conn.Close()
}

// enter notes the state that net/http says c is in. It calls a connection active when it has read a whole header.
func (c *slotConn) enter(state http.ConnState) {
	c.slots.mu.Lock()
	defer c.slots.mu.Unlock()
	switch state {
	case http.StateActive:
		c.phase, c.since = answering, time.Now()
	case http.StateIdle:
		c.phase, c.since = waiting, time.Now()
	}
}

// connKey is where a request's context has its connection.
type connKey struct{}

// connOf returns the connection of r, or nil if it came another way. A nil slotConn does nothing.
func connOf(r *http.Request) *slotConn {
	c, _ := r.Context().Value(connKey{}).(*slotConn)
	return c
}

// identify notes whether the request under way is an operator's.
func (c *slotConn) identify(isOperator bool) {
	if c == nil {
		return
	}
	c.slots.mu.Lock()
	defer c.slots.mu.Unlock()
	if c.standing = c.base; isOperator {
		c.standing = operator
	}
}

// keep says whether c is to keep its slot whatever happens, from now on until the request under way is answered.
func (c *slotConn) keep(is bool) {
	if c == nil {
		return
	}
	c.slots.mu.Lock()
	defer c.slots.mu.Unlock()
	if c.phase, c.since = answering, time.Now(); is {
		c.phase = kept
	}
}

// counts returns how many connections are open, and how many there were that were evicted or refused.
func (s *slots) counts() (open int, evicted, refused int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), s.evicted.total, s.refused.total
}

// refuseConn closes conn with an answer, whatever it wants to ask.
func refuseConn(conn net.Conn) {
	const body = `{"error":"too many requests are under way: try again"}` + "\n"
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // there is room for it in the socket
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"+
		"Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	_ = conn.Close()
}

// complainEvery is how often the log says that there is the same trouble.
const complainEvery = time.Minute

// A complaint counts one kind of trouble, so that the log says it once in a while.
type complaint struct {
	total  int64 // all
	logged int64 // of these, as many as the log knows of
	next   time.Time
}

// add counts one more. It returns how many the log is to say now, or zero.
func (c *complaint) add(now time.Time) int64 {
	c.total++
	if now.Before(c.next) {
		return 0
	}
	n := c.total - c.logged
	c.logged, c.next = c.total, now.Add(complainEvery)
	return n
}
