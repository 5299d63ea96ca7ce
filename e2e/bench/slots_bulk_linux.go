package main

import (
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// mib is a unit of work in bulk loads, in bytes. The latency of a bulk load is that of one MiB.
const mib = 1 << 20

// A bulkSlot moves its share of the bytes over one open connection, in one direction.
type bulkSlot struct {
	fd    int
	op    byte // opUp or opDown
	share int  // MiB

	id       int
	left     int64
	header   []byte // part of the command not sent yet
	finished bool
	began    time.Time // start of the current MiB
}

func (s *bulkSlot) begin(l *loop, id int) {
	s.id, s.left, s.began = id, int64(s.share)*mib, time.Now()
	s.header = message(s.op, s.left)
	l.work -= s.share
	if _, err := unix.Write(s.fd, s.header); err != nil {
		s.fail(l, err)
		return
	}
	events := uint32(unix.EPOLLIN)
	if s.op == opUp {
		events = unix.EPOLLOUT
	}
	if err := l.watch(s.fd, id, events); err != nil {
		s.fail(l, err)
	}
}

func (s *bulkSlot) ready(l *loop, _ uint32) {
	if s.finished {
		return
	}
	var n int
	var err error
	switch {
	case s.left == 0: // all is sent, and this is the answer to it
		n, err = unix.Read(s.fd, l.buf[:messageSize])
		if n > 0 {
			l.success(s.began)
			s.end(l)
			return
		}
	case s.op == opUp:
		n, err = unix.Write(s.fd, l.buf[:min(s.left, bulkBuffer)])
	default:
		n, err = unix.Read(s.fd, l.buf[:min(s.left, bulkBuffer)])
	}
	switch {
	case err != nil && again(err):
	case err != nil:
		s.fail(l, err)
	case n == 0:
		s.fail(l, io.ErrUnexpectedEOF)
	default:
		s.moved(l, int64(n))
	}
}

// moved counts n bytes. The last MiB of an upload counts when its answer comes, because only then it has arrived.
func (s *bulkSlot) moved(l *loop, n int64) {
	before := (s.left - 1) / mib
	s.left -= n
	switch {
	case s.left > 0 && (s.left-1)/mib < before:
		l.success(s.began)
		s.began = time.Now()
	case s.left > 0:
	case s.op == opDown:
		l.success(s.began)
		s.end(l)
	default:
		if err := l.rewatch(s.fd, s.id, unix.EPOLLIN); err != nil {
			s.fail(l, err)
		}
	}
}

func (s *bulkSlot) end(l *loop) {
	s.finished = true
	l.forget(s.fd)
	l.finish()
}

func (s *bulkSlot) fail(l *loop, err error) {
	l.failure(err)
	s.end(l)
}

func (s *bulkSlot) tick(*loop, time.Time) {}
