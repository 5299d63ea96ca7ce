package main

import (
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// An exchangeSlot makes one connection after the other: it connects, sends a request, reads the answer, and closes. It
// is the load "connect-request-close" and the load of transfers on new connections. When it keeps its connections open,
// it makes the idle connections.
type exchangeSlot struct {
	addrs  []netip.AddrPort // in turn, with all other slots
	op     byte
	answer int // bytes
	keep   bool
	header []byte // sent in front of the request

	id      int
	fd      int
	began   time.Time
	request []byte
	sent    bool
	got     int
}

func (s *exchangeSlot) begin(l *loop, id int) {
	s.id, s.fd = id, -1
	s.request = append(s.header, message(s.op, int64(s.answer))...)
	s.start(l)
}

// start opens the next connection if there is work left.
func (s *exchangeSlot) start(l *loop) {
	for l.take() {
		s.began, s.sent, s.got = time.Now(), false, 0
		// A turn of each slot would keep in step those that one endpoint answers at the same time: the next endpoint
		// would get them all at once, and wake up less often than behind any balancer.
		fd, err := dial(unix.SOCK_STREAM, s.addrs[l.work%len(s.addrs)], 1+l.work%sources)
		if err == nil {
			// Edge-triggered events save a second epoll_ctl for such a short-lived descriptor.
			if err = l.watch(fd, s.id, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET); err == nil {
				s.fd = fd
				return
			}
			unix.Close(fd)
		}
		l.failure(err)
	}
	l.finish()
}

func (s *exchangeSlot) ready(l *loop, events uint32) {
	if s.fd < 0 {
		return
	}
	if !s.sent {
		if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
			return
		}
		_, err := unix.Write(s.fd, s.request)
		switch {
		case err == nil:
			s.sent = true
		case again(err):
			return
		default:
			s.end(l, err)
			return
		}
	}
	for s.got < s.answer {
		n, err := unix.Read(s.fd, l.buf)
		switch {
		case err == nil && n == 0:
			s.end(l, io.ErrUnexpectedEOF)
			return
		case err == nil:
			s.got += n
		case again(err):
			return
		default:
			s.end(l, err)
			return
		}
	}
	s.end(l, nil)
}

// end closes or keeps the connection and starts the next one.
func (s *exchangeSlot) end(l *loop, err error) {
	if err == nil && s.keep {
		l.kept = append(l.kept, s.fd)
	} else {
		unix.Close(s.fd)
	}
	s.fd = -1
	if err != nil {
		l.failure(err)
	} else {
		l.success(s.began)
	}
	s.start(l)
}

func (s *exchangeSlot) tick(l *loop, now time.Time) {
	if s.fd >= 0 && now.Sub(s.began) > answerTimeout {
		s.end(l, errUnanswered)
	}
}

// A requestSlot sends requests on open connections, each in turn, and waits for each answer.
type requestSlot struct {
	fds  []int
	more int // bytes of requests and answers beyond messageSize

	id, current int
	busy        bool
	began       time.Time
	request     []byte
	got         int
}

func (s *requestSlot) begin(l *loop, id int) {
	s.id = id
	s.request = message(opEcho, 0)
	if s.more > 0 {
		s.request = append(message(opBlock, int64(s.more)), make([]byte, s.more)...)
	}
	for _, fd := range s.fds {
		if err := l.watch(fd, id, unix.EPOLLIN); err != nil {
			l.failure(err)
			l.finish()
			return
		}
	}
	s.send(l)
}

func (s *requestSlot) send(l *loop) {
	if s.busy = l.take(); !s.busy {
		l.finish()
		return
	}
	s.current = (s.current + 1) % len(s.fds)
	s.began, s.got = time.Now(), 0
	// A request always fits into the send buffer, because the previous one was answered.
	if _, err := unix.Write(s.fds[s.current], s.request); err != nil {
		s.fail(l, err)
	}
}

func (s *requestSlot) ready(l *loop, _ uint32) {
	if !s.busy {
		return
	}
	n, err := unix.Read(s.fds[s.current], l.buf)
	switch {
	case err == nil && n == 0:
		s.fail(l, io.ErrUnexpectedEOF)
	case err != nil && again(err):
	case err != nil:
		s.fail(l, err)
	default:
		if s.got += n; s.got >= len(s.request) {
			l.success(s.began)
			s.send(l)
		}
	}
}

// fail ends the slot, because a broken connection cannot be used further.
func (s *requestSlot) fail(l *loop, err error) {
	l.failure(err)
	l.forget(s.fds[s.current])
	s.busy = false
	l.finish()
}

func (s *requestSlot) tick(l *loop, now time.Time) {
	if s.busy && now.Sub(s.began) > answerTimeout {
		s.fail(l, errUnanswered)
	}
}

// open opens n connections. Each has had an answer, so that the proxy has allocated all that it needs for them.
func open(addrs []netip.AddrPort, n int) ([]int, error) {
	l, err := newLoop(n)
	if err != nil {
		return nil, err
	}
	var slots []slot
	for range min(n, 32) {
		slots = append(slots, &exchangeSlot{addrs: addrs, op: opEcho, answer: messageSize, keep: true})
	}
	err = l.run(slots, time.Minute)
	fds := l.kept
	l.kept = nil
	l.close()
	if err == nil && l.errors > 0 {
		err = fmt.Errorf("%d of %d connections failed, the last: %w", l.errors, n, l.lastErr)
	}
	if err != nil {
		closeAll(fds)
		return nil, err
	}
	return fds, nil
}

// openUnix opens n connections to the Unix socket at path. Each has had an answer.
func openUnix(path string, n int) ([]int, error) {
	var fds []int
	for range n {
		fd, err := dialUnix(path)
		if err != nil {
			closeAll(fds)
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// dialUnix opens a connection to the Unix socket at path, makes one request, and makes the socket non-blocking.
func dialUnix(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
	}
	if err == nil {
		_, err = unix.Write(fd, message(opEcho, 0))
	}
	answer := make([]byte, messageSize)
	for got := 0; err == nil && got < messageSize; {
		var n int
		if n, err = unix.Read(fd, answer[got:]); n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
		got += n
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
