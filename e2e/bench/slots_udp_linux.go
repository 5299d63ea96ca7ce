package main

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A datagramSlot sends requests from one UDP socket and waits for each answer.
type datagramSlot struct {
	fd int
	to *unix.SockaddrInet4 // of each datagram; nil: the socket is connected

	sequence uint64
	busy     bool
	began    time.Time
	request  []byte
}

// sequenceAt is the offset of the sequence number in a request. The number shows that a late answer is not the answer
// to the next request.
const sequenceAt = 9

func (s *datagramSlot) begin(l *loop, id int) {
	s.request = message(opEcho, 0)
	if err := l.watch(s.fd, id, unix.EPOLLIN); err != nil {
		l.failure(err)
		l.finish()
		return
	}
	s.send(l)
}

func (s *datagramSlot) send(l *loop) {
	for {
		if s.busy = l.take(); !s.busy {
			l.finish()
			return
		}
		s.sequence++
		binary.BigEndian.PutUint64(s.request[sequenceAt:], s.sequence)
		s.began = time.Now()
		err := s.write()
		if err == nil {
			return
		}
		l.failure(err)
	}
}

func (s *datagramSlot) write() error {
	if s.to != nil {
		return unix.Sendto(s.fd, s.request, 0, s.to)
	}
	_, err := unix.Write(s.fd, s.request)
	return err
}

func (s *datagramSlot) ready(l *loop, _ uint32) {
	n, err := s.read(l.buf)
	switch {
	case !s.busy || err != nil && again(err):
	case err != nil:
		l.failure(err)
		s.send(l)
	case n == messageSize && binary.BigEndian.Uint64(l.buf[sequenceAt:]) == s.sequence:
		l.success(s.began)
		s.send(l)
	}
}

// read also takes the address of the sender if the socket is not connected, as clients do that check it.
func (s *datagramSlot) read(buf []byte) (int, error) {
	if s.to == nil {
		return unix.Read(s.fd, buf)
	}
	n, _, err := unix.Recvfrom(s.fd, buf, 0)
	return n, err
}

func (s *datagramSlot) tick(l *loop, now time.Time) {
	if s.busy && now.Sub(s.began) > answerTimeout/4 {
		l.failure(errUnanswered)
		s.send(l)
	}
}

// A oneWaySlot sends datagrams in bursts. Only the last datagram of a burst is answered, so that the sender does not
// overrun the buffers on the way. The backends count the datagrams that arrive.
type oneWaySlot struct {
	fd   int
	size int

	id       int
	busy     bool
	began    time.Time
	datagram []byte
}

// burst is the largest number of datagrams from one socket that are on the way. Those of all sockets must fit into a
// receive buffer of the default size.
const burst = 16

func (s *oneWaySlot) begin(l *loop, id int) {
	s.id = id
	s.datagram = make([]byte, s.size)
	if err := l.watch(s.fd, id, unix.EPOLLIN); err != nil {
		l.failure(err)
		l.finish()
		return
	}
	s.send(l)
}

func (s *oneWaySlot) send(l *loop) {
	if s.busy = l.work > 0; !s.busy {
		l.finish()
		return
	}
	s.began = time.Now()
	for i := range burst {
		l.work--
		s.datagram[0] = opSink
		if l.work == 0 || i == burst-1 {
			s.datagram[0] = opAck
		}
		if _, err := unix.Write(s.fd, s.datagram); err != nil {
			l.lastErr = err // the backends count it as missing
		}
		if l.work == 0 {
			return
		}
	}
}

func (s *oneWaySlot) ready(l *loop, _ uint32) {
	n, err := unix.Read(s.fd, l.buf)
	if s.busy && err == nil && n > 0 {
		l.latency.record(time.Since(s.began))
		s.send(l)
	} else if err != nil && !again(err) {
		l.lastErr = err
	}
}

func (s *oneWaySlot) tick(l *loop, now time.Time) {
	if s.busy && now.Sub(s.began) > tickInterval {
		s.send(l)
	}
}

// A newSlot is a new client for each request: it opens a socket, sends a request, waits for the answer, and closes the
// socket.
type newSlot struct {
	addr netip.AddrPort

	id      int
	fd      int
	began   time.Time
	request []byte
}

func (s *newSlot) begin(l *loop, id int) {
	s.id, s.fd = id, -1
	s.request = message(opEcho, 0)
	l.waiting = append(l.waiting, s)
}

func (s *newSlot) start(l *loop) {
	if !l.take() {
		l.finish()
		return
	}
	s.began = time.Now()
	// Use many source addresses. One address has only 28,000 ports, and a client on a port with a live session would
	// not be new.
	fd, err := dial(unix.SOCK_DGRAM, s.addr, 1+l.work%sources)
	if err != nil {
		s.end(l, err)
		return
	}
	s.fd = fd
	if err = l.watch(fd, s.id, unix.EPOLLIN); err == nil {
		_, err = unix.Write(fd, s.request)
	}
	if err != nil {
		s.end(l, err)
	}
}

func (s *newSlot) ready(l *loop, _ uint32) {
	if s.fd < 0 {
		return
	}
	_, err := unix.Read(s.fd, l.buf)
	if err == nil || !again(err) {
		s.end(l, err)
	}
}

func (s *newSlot) end(l *loop, err error) {
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
	s.fd = -1
	if err != nil {
		l.failure(err)
	} else {
		l.success(s.began)
	}
	l.waiting = append(l.waiting, s)
}

func (s *newSlot) tick(l *loop, now time.Time) {
	if s.fd >= 0 && now.Sub(s.began) > answerTimeout/2 {
		s.end(l, errUnanswered)
	}
}
