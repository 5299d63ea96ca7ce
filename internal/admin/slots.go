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

// slots limits the connections of a Server, over all its listeners. The server accepts every connection at once, so
// none waits in the kernel's queue. If no slot is free, the new connection takes the slot of an open connection, which
// is closed; see rankLocked. A new connection is refused only if requests that must not be interrupted are under way on
// all open connections.
//
// netutil.LimitListener of golang.org/x/net does not fit: it stops accepting at the limit. With such a limit, a
// stranger with idle connections could lock the operator out, because the operator's connection would wait in the
// kernel's queue.
//
// slots is safe for concurrent use.
type slots struct {
	most    int
	stalled time.Duration // an operator's request may be interrupted after this time
	log     hclog.Logger

	mu      sync.Mutex
	open    map[*slotConn]struct{}
	evicted complaint // connections closed to make room for new ones
	refused complaint // connections closed at once
}

func newSlots(most int, stalled time.Duration, log hclog.Logger) *slots {
	return &slots{most: most, stalled: stalled, log: log, open: map[*slotConn]struct{}{}}
}

// A standing is what is known of a connection's peer. A connection with a higher standing keeps its slot longer.
type standing int

const (
	remoteStranger standing = iota // a peer on another host that has not shown the token
	localStranger                  // a peer on this host that has not shown the token
	operator                       // the last request passed the guard, or the listener is a Unix socket
)

// A phase is what a connection is doing now.
type phase int

const (
	waiting   phase = iota // the connection waits for a request's header
	answering              // a request is under way
	kept                   // a request is under way that takes long on purpose, and must not be interrupted
)

// A peer identifies a client: an IPv4 address, or the /64 prefix of an IPv6 address. The zero peer is every client of a
// Unix socket.
type peer struct{ netip.Prefix }

// peerOf returns the peer at a, and whether the peer is on this host.
func peerOf(a net.Addr) (p peer, local bool) {
	tcp, is := a.(*net.TCPAddr)
	if !is {
		return peer{}, true
	}
	addr, bits := tcp.AddrPort().Addr().Unmap(), 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // this fails only if bits is too large
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

// A slotConn is a connection that occupies a slot until it is closed.
type slotConn struct {
	net.Conn
	slots *slots
	peer  peer
	local bool     // the peer is on this host
	base  standing // the lowest standing of the peer

	// slots.mu guards the following fields.
	standing standing
	phase    phase
	since    time.Time // when the phase began
}

// listener returns a listener that gives each of its connections a slot of s.
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

// admit gives conn a slot. If no slot can be freed, admit refuses and closes conn, and returns nil.
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
	if unsaid > 0 { // last, because logging may be slow
		s.complain(loser.peer, c == nil, unsaid)
	}
	return c
}

// place gives c a slot if it can. place returns the connection that lost its slot: another one, c itself, or nil. The
// result unsaid is how many such losses to log now; zero means that nothing needs logging.
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

// complain logs that n connections were refused or evicted. The last of them came from p.
func (s *slots) complain(p peer, refused bool, n int64) {
	text := "connections to the admin API closed to make room for new ones: the limit is reached"
	if refused {
		text = "connections to the admin API refused: the limit is reached, and all are busy"
	}
	s.log.Warn(text, "connections", s.most, "closed", n, "peer", p.String())
}

// never is the rank of a connection that must keep its slot.
const never = 2 * (int(operator) + 1)

// rankLocked returns the rank of c: the connection with the lowest rank loses its slot first. Peers without the token
// rank below operators, and among them remote peers rank lowest. For equal peers, a connection without a request under
// way ranks lower, because RFC 9112 9.3 allows to close it at any time. An operator's request may be interrupted only
// if it is stalled, for example because the client does not read the answer.
func (s *slots) rankLocked(c *slotConn, now time.Time) int {
	switch {
	case c.phase == kept:
		return never
	case c.phase == answering && c.standing == operator && now.Sub(c.since) < s.stalled:
		return never
	}
	return 2*int(c.standing) + int(c.phase)
}

// victimLocked returns the connection that must give its slot away, or nil. victimLocked considers the connections of
// the lowest rank. Of these connections, victimLocked takes one of the peer with the most connections, so that no peer
// takes the slots of others. If that peer has several, victimLocked takes the one that has been longest in its phase.
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

// Close closes c and frees its slot. An evicted connection has lost its slot already.
func (c *slotConn) Close() error {
	c.slots.mu.Lock()
	delete(c.slots.open, c)
	c.slots.mu.Unlock()
	return c.Conn.Close()
}

// enter records the state that net/http reports for c. net/http calls a connection active once it has read a whole
// header.
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

// connKey is the context key for the connection of a request.
type connKey struct{}

// connOf returns the connection of r, or nil if r did not come through slots. The methods of a nil slotConn that
// requests use do nothing.
func connOf(r *http.Request) *slotConn {
	c, _ := r.Context().Value(connKey{}).(*slotConn)
	return c
}

// identify records whether the current request comes from an operator.
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

// keep records whether c must keep its slot until the current request is answered.
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

// counts returns the number of open connections, and the totals of evicted and refused ones.
func (s *slots) counts() (open int, evicted, refused int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), s.evicted.total, s.refused.total
}

// refuseConn answers 503 without reading the request, and closes conn.
func refuseConn(conn net.Conn) {
	const body = `{"error":"too many requests: try again"}` + "\n"
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // the socket's buffer takes the whole answer
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"+
		"Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	_ = conn.Close()
}

// complainEvery is the minimum time between two log lines about the same problem.
const complainEvery = time.Minute

// A complaint counts one kind of problem, and limits how often the log mentions it.
type complaint struct {
	total  int64 // all
	logged int64 // part of total that the log has mentioned
	next   time.Time
}

// add counts one more problem. add returns the number to log now; zero means that nothing needs logging.
func (c *complaint) add(now time.Time) int64 {
	c.total++
	if now.Before(c.next) {
		return 0
	}
	n := c.total - c.logged
	c.logged, c.next = c.total, now.Add(complainEvery)
	return n
}
