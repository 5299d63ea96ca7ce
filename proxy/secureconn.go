package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// A secureConn is a streamConn over which TLS is spoken. Read, Close and what it inherits speak TLS; CloseWrite,
// SyscallConn and the deadlines are those of the socket.
//
// Package tls makes an error of a write permanent, and so would a deadline that passes in the middle of a record be.
// Therefore no write of package tls reaches the socket: the bytes are queued, and flush sends them. An error of a read
// is kept too, unless it is temporary, as that of a deadline is. TestCryptoTLSKeepsItsHabits pins both.
type secureConn struct {
	*tls.Conn
	wire *wire

	denies bool   // the peer is an endpoint with EndpointTLS.Denies
	inside bool   // the peer is an endpoint with EndpointTLS.HeaderInside
	early  []byte // bytes that were read before the relay, and not returned by Read yet
}

// Read returns errTruncated, not io.EOF, if the peer ended the connection without close_notify.
func (c *secureConn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	n, err := c.Conn.Read(b)
	if c.wire.ended && (err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)) {
		err = errTruncated
	}
	return n, err
}

// deserted waits until the client goes, or the read deadline passes. deserted returns nil if the deadline passes first,
// and as soon as the client has sent data.
func (c *secureConn) deserted() *clientError {
	if len(c.early) > 0 {
		return nil
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	c.early = buf[:n]
	switch {
	case n > 0 || errors.Is(err, os.ErrDeadlineExceeded) || err == errAnswerFirst:
		return nil
	case err == io.EOF:
		return &clientError{}
	}
	return &clientError{err}
}

// peerOf returns what the TLS handshake over c has shown, or nil if there was none.
func peerOf(c streamConn) *TLSPeer {
	if s, is := c.(*secureConn); is {
		return tlsPeerOf(s.ConnectionState())
	}
	return nil
}

// sayEnd queues the close_notify of TLS, unless it was queued before.
func (c *secureConn) sayEnd() { _ = c.Conn.CloseWrite() } // the queue takes it, or package tls has failed already

// flushUntil sends what is queued, until limit at the latest.
func (c *secureConn) flushUntil(limit time.Time) {
	_ = c.wire.bare.SetWriteDeadline(limit)
	for c.wire.queued() > 0 {
		if _, err := c.wire.flush(); err != nil {
			return
		}
	}
}

// Close takes leave of the peer, and closes the socket.
func (c *secureConn) Close() error {
	c.sayEnd()
	c.flushUntil(time.Now().Add(deliverTimeout))
	return c.wire.bare.Close()
}

// CloseWrite ends this side of the socket, behind what flush has sent.
func (c *secureConn) CloseWrite() error { return c.wire.bare.CloseWrite() }

func (c *secureConn) SyscallConn() (syscall.RawConn, error) { return c.wire.bare.SyscallConn() }

func (c *secureConn) SetDeadline(t time.Time) error      { return c.wire.bare.SetDeadline(t) }
func (c *secureConn) SetReadDeadline(t time.Time) error  { return c.wire.bare.SetReadDeadline(t) }
func (c *secureConn) SetWriteDeadline(t time.Time) error { return c.wire.bare.SetWriteDeadline(t) }

// A wire is what package tls has for a connection. During the handshake, a wire reads and writes the socket. After it,
// writes go to a queue.
type wire struct {
	streamConn // of which the methods below are replaced
	bare       streamConn

	computing handshakes // the handshake that uses the wire has a place in it; nil after the handshake
	first     []byte     // bytes of the peer that were read before
	header    []byte     // leaves with the first bytes of the handshake
	heard     bool       // the peer has sent something
	ended     bool       // the system has reported that the peer has ended its side
	dialed    bool       // the peer is an endpoint
	unsent    error      // an endpoint has reset the connection before it took the whole handshake; see Write

	sending sync.Mutex // held while bytes of the queue are written
	mu      sync.Mutex // guards what follows
	queue   *[]byte    // bytes for the peer; nil if there are none
	sent    int        // bytes at the start of the queue that the socket has taken
}

// Read and Write give the handshake's place to another one while they wait.

func (w *wire) Read(b []byte) (n int, err error) {
	switch {
	case len(w.first) > 0:
		n = copy(b, w.first)
		w.first = w.first[n:]
		return n, nil
	case w.computing != nil:
		w.computing.leave()
		n, err = w.bare.Read(b)
		w.computing.enter()
		if err == io.EOF && w.unsent != nil { // the system reports a reset once
			err = w.unsent
		}
	case w.queued() > maxAnswers:
		return 0, errAnswerFirst
	default:
		n, err = w.bare.Read(b)
	}
	w.heard = w.heard || n > 0
	w.ended = w.ended || err == io.EOF
	return n, err
}

// Write reports no error if an endpoint has reset the connection during the handshake: the next read returns what the
// endpoint has sent before, such as an alert, and then the error.
func (w *wire) Write(b []byte) (int, error) {
	if w.computing == nil {
		w.enqueue(b)
		return len(b), nil
	}
	w.computing.leave()
	defer w.computing.enter()
	all := b
	if len(w.header) > 0 {
		all = append(w.header, b...)
	}
	n, err := w.bare.Write(all)
	n = max(n-len(w.header), 0)
	w.header = nil
	if w.dialed && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		w.unsent = syscall.ECONNRESET
		return len(b), nil
	}
	return n, err
}

// Package tls sets deadlines around its close_notify. The queue needs none.

func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

var queues = sync.Pool{New: func() any { return new([]byte) }}

func (w *wire) enqueue(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queue == nil {
		w.queue = queues.Get().(*[]byte)
	}
	*w.queue = append(*w.queue, b...)
}

// queued returns how many bytes flush has to send.
func (w *wire) queued() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queue == nil {
		return 0
	}
	return len(*w.queue) - w.sent
}

// flush writes what is in the queue now, and returns how many bytes the socket has taken. After an error, the rest is
// still queued.
func (w *wire) flush() (int, error) {
	w.sending.Lock()
	defer w.sending.Unlock()
	w.mu.Lock()
	var b []byte
	if w.queue != nil {
		b = (*w.queue)[w.sent:] // stays as it is, because enqueue only appends
	}
	w.mu.Unlock()
	if len(b) == 0 {
		return 0, nil
	}
	n, err := w.bare.Write(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sent += n; w.sent == len(*w.queue) {
		*w.queue = (*w.queue)[:0]
		queues.Put(w.queue)
		w.queue, w.sent = nil, 0
	}
	return n, err
}

// maxAnswers is how many bytes may be queued before Read waits. The queue holds up to one write of the relay. The rest
// is what package tls answers to messages of the peer. A peer can ask for any number of answers and take none.
const maxAnswers = 4 * bufferSize

// errAnswerFirst is the error of a read that waits until the queue is shorter. It is temporary for package tls.
var errAnswerFirst error = answerFirst{}

type answerFirst struct{}

func (answerFirst) Error() string   { return "the peer does not take the answers of TLS" }
func (answerFirst) Timeout() bool   { return true }
func (answerFirst) Temporary() bool { return true }

// handshakes bounds how many handshakes compute at once, see handshakesAtOnce. A handshake that waits for its peer has
// no place.
type handshakes chan struct{}

// handshakesAtOnce returns how many handshakes may compute at once beside this many loops, or beside the relays of the
// portable engine on this many processors: half of the processors are left for what has begun.
func handshakesAtOnce(loops int) int { return max(1, loops/2) }

func (h handshakes) enter() { h <- struct{}{} }
func (h handshakes) leave() { <-h }

// shake makes c, which is a client or a server over w, shake hands until ctx ends or the time is up.
func (h handshakes) shake(ctx context.Context, w *wire, c *tls.Conn, until time.Time) (*secureConn, error) {
	_ = w.bare.SetDeadline(until)
	stop := context.AfterFunc(ctx, func() { _ = w.bare.SetDeadline(time.Unix(1, 0)) })
	h.enter()
	w.computing = h
	err := c.Handshake()
	if err == nil && w.unsent != nil { // the endpoint has not got the end of the handshake, so it sends no data
		if _, err = c.Read(make([]byte, 1)); err == nil {
			err = w.unsent
		}
	}
	w.computing = nil
	h.leave()
	if !stop() {
		return nil, ctx.Err()
	}
	_ = w.bare.SetDeadline(time.Time{})
	if err != nil {
		return nil, err
	}
	return &secureConn{Conn: c, wire: w}, nil
}
