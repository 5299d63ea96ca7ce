package proxy

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file has the ends of a pair that speak TLS, and what a tls.Conn sees of them. See docs/ends.md.

// A pairTLS holds what a pair needs in addition if one of its ends speaks TLS.
type pairTLS struct {
	ends   [2]*tlsEnd // by side; nil if that end is bare or given up
	cause  error      // error of TLS that ended the pair; nil if none did
	shown  *TLSPeer   // what the client has shown; set if its end is refused, or is given up and a log wants to know
	denies bool       // EndpointTLS.Denies of the endpoint's end
	inside bool       // EndpointTLS.HeaderInside of the endpoint's end

	shaken time.Duration // when the last handshake was over, by the loop's clock

	identified *identifiedPair // nil if the client has no identity
}

// A tlsEnd is one end of a pair that speaks TLS. It is the net.Conn of its tls.Conn.
//
// During the handshake a goroutine owns the end, and Read waits for the peer. Afterwards the loop owns the end: Read
// returns errLater if nothing has arrived, and Write always takes everything. TestCryptoTLSKeepsItsHabits holds what
// this relies on in crypto/tls.
type tlsEnd struct {
	conn  *tls.Conn
	fd    int32
	shake *handshake // nil once the handshake is over
	kit   *tlsKit    // buffers of the loop
	pair  *loopPair  // nil during the handshake
	side  int

	ahead  []byte   // bytes that were read from the socket, but not by conn; a part of a shared buffer
	held   *backlog // what is left of ahead between two calls of readPlain
	rest   int      // bytes of the current record that conn has not read yet
	header [recordHeader]byte
	inHead int // number of bytes in header; the header of the current record is not complete

	queue *backlog // bytes of conn that the socket does not take yet, oldest first
	last  *backlog // last backlog of queue

	full    bool          // readPlain has read from the socket, and reads no more
	more    bool          // conn may have plaintext or whole records that it has read
	ended   bool          // the socket has ended; without close_notify this is a truncation
	endSent bool          // close_notify was written
	fin     bool          // the socket must be shut down for writing once queue is empty
	failed  syscall.Errno // error of the socket when conn wrote last
}

// A tlsKit holds the buffers of a loop that serves TLS. They are in use only during one call of the loop.
type tlsKit struct {
	in    [tlsBuffer]byte             // what was read from a socket
	plain [tlsBuffer + maxRecord]byte // what a direction moves, not encrypted
	out   []byte                      // what conn has written and the socket has not got yet
}

// Sizes of TLS, from RFC 8446, section 5: records of up to 16 KiB of plaintext have a header of 5 bytes.
const (
	recordHeader = 5
	maxRecord    = 16 << 10
)

// tlsBuffer is how many bytes a direction moves at once. Sending several records in one call costs less than sending
// each alone.
const tlsBuffer = 64 << 10

// useTLS makes the loop's tlsKit unless it has one.
func (l *eventLoop) useTLS() *tlsKit {
	if l.tls == nil {
		l.tls = &tlsKit{out: make([]byte, 0, tlsBuffer+2*maxRecord)}
	}
	return l.tls
}

// A laterError is the error of a tlsEnd's Read if nothing has arrived. crypto/tls does not keep an error that is
// temporary.
type laterError struct{}

func (laterError) Error() string   { return "nothing has arrived yet" }
func (laterError) Timeout() bool   { return true }
func (laterError) Temporary() bool { return true }

var errLater net.Error = laterError{}

// Read gives conn what has arrived, at most to the end of the current record. So the buffer that conn keeps for as long
// as the connection lasts is never larger than one record.
func (e *tlsEnd) Read(b []byte) (int, error) {
	if len(e.ahead) == 0 {
		if err := e.readAhead(); err != nil {
			return 0, err
		}
	}
	n := copy(b[:min(len(b), e.toRecordEnd())], e.ahead)
	e.advance(e.ahead[:n])
	e.ahead = e.ahead[n:]
	return n, nil
}

// readAhead reads from the socket into ahead.
func (e *tlsEnd) readAhead() error {
	if e.shake != nil {
		return e.shake.readAhead()
	}
	p := e.pair
	if !p.readable[e.side] || e.full {
		return errLater
	}
	n, err := sys.RecvStream(e.fd, e.kit.in[:])
	switch {
	case err == unix.EAGAIN:
		p.readable[e.side] = false
		return errLater
	case err != 0:
		return err
	case n == 0:
		e.ended = true
		return io.EOF
	case n < len(e.kit.in):
		p.readable[e.side] = p.hangup[e.side] || sys.Faults // see loopPair.copy
	}
	e.ahead, e.full = e.kit.in[:n], true
	return nil
}

// toRecordEnd returns how many bytes of ahead may be read before the next call. It is at least one.
func (e *tlsEnd) toRecordEnd() int {
	switch {
	case e.rest > 0:
		return e.rest
	case e.inHead == 0 && len(e.ahead) >= recordHeader:
		return recordHeader + int(binary.BigEndian.Uint16(e.ahead[3:]))
	}
	return recordHeader - e.inHead
}

// isReadUp reports whether conn has got all that readPlain has read from the socket, to the end of a record. Another
// Read of conn, which costs a twentieth of a small request, would return errLater.
func (e *tlsEnd) isReadUp() bool { return e.full && len(e.ahead) == 0 && e.rest == 0 && e.inHead == 0 }

// advance notes that conn reads b, which toRecordEnd allows.
func (e *tlsEnd) advance(b []byte) {
	if e.rest > 0 {
		e.rest -= len(b)
		return
	}
	n := copy(e.header[e.inHead:], b)
	if e.inHead += n; e.inHead == recordHeader {
		e.rest = int(binary.BigEndian.Uint16(e.header[3:])) - (len(b) - n)
		e.inHead = 0
	}
}

// Write takes all of b. What the socket does not take waits in queue. The pair does not read more from the other end,
// nor from this one, before queue is empty.
func (e *tlsEnd) Write(b []byte) (int, error) {
	if e.shake != nil {
		return e.shake.write(b)
	}
	k := e.kit
	if len(k.out)+len(b) > cap(k.out) {
		e.push()
	}
	k.out = append(k.out, b...)
	return len(b), nil
}

// push sends what conn has written. push must be called after each call of conn that may write.
func (e *tlsEnd) push() {
	b := e.kit.out
	e.kit.out = b[:0]
	if len(b) == 0 || e.failed != 0 {
		return
	}
	n, err := 0, unix.EAGAIN
	if e.queue == nil {
		n, err = sys.SendStream(e.fd, b)
	}
	switch err {
	case 0, unix.EAGAIN:
		if n == len(b) {
			return
		}
		e.pair.writable[e.side] = false
		e.keep(b[n:])
	default:
		e.failed = err
		e.drop()
	}
}

// keep puts b at the end of queue.
func (e *tlsEnd) keep(b []byte) {
	first, last := e.pair.loop.keepAll(b)
	if e.queue == nil {
		e.queue = first
	} else {
		e.last.next = first
	}
	e.last = last
}

// keepAll returns backlogs with a copy of b, the first and the last one. Both are nil if b is empty.
func (l *eventLoop) keepAll(b []byte) (first, last *backlog) {
	next := &first
	for len(b) > 0 {
		n := min(len(b), bufferSize)
		last = l.keep(b[:n])
		*next, next = last, &last.next
		b = b[n:]
	}
	return first, last
}

// hold keeps what is left of ahead after a call of conn.Read.
func (e *tlsEnd) hold() {
	if len(e.ahead) > 0 {
		e.held, _ = e.pair.loop.keepAll(e.ahead)
	}
	e.ahead = nil
}

// unhold is the opposite of hold.
func (e *tlsEnd) unhold() {
	n := 0
	for k := e.held; k != nil; k = e.held {
		n += copy(e.kit.in[n:], k.buf[k.from:k.to])
		e.held = k.next
		e.pair.loop.forget(k)
	}
	e.ahead = e.kit.in[:n]
}

// drop discards what waits in queue.
func (e *tlsEnd) drop() {
	for k := e.queue; k != nil; k = e.queue {
		e.queue = k.next
		e.pair.loop.forget(k)
	}
}

// sayEnd writes close_notify unless that was done, and then ends the socket's sending side.
func (e *tlsEnd) sayEnd() {
	if e.endSent {
		return
	}
	e.endSent, e.fin = true, true
	_ = e.conn.CloseWrite() // an error of the socket is in failed
	e.push()
	e.finish()
}

// finish ends the socket's sending side if sayEnd was called and nothing waits any more.
func (e *tlsEnd) finish() {
	if e.fin && e.queue == nil {
		e.fin = false
		if sys.ShutdownWrite(e.fd) != 0 {
			e.pair.reset = true // see loopPair.sourceEnded
		}
	}
}

// Close, the addresses and the deadlines complete net.Conn. The pair closes the socket and sets timers.

func (e *tlsEnd) Close() error                     { return nil }
func (e *tlsEnd) LocalAddr() net.Addr              { return nil }
func (e *tlsEnd) RemoteAddr() net.Addr             { return nil }
func (e *tlsEnd) SetDeadline(time.Time) error      { return nil }
func (e *tlsEnd) SetReadDeadline(time.Time) error  { return nil }
func (e *tlsEnd) SetWriteDeadline(time.Time) error { return nil }
