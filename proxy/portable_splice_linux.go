package proxy

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// spliceSome moves the bytes of one splice from the source. spliceSome takes no more than the destination accepts now,
// so the mover never holds a pipe while it waits.
func (m *mover) spliceSome() error {
	if err := m.awaitRoom(); err != nil {
		return err
	}
	if err := m.await(m.in, m.fillFn); err != nil {
		return err
	}
	if m.pipe == nil { // no pipe, or nothing to splice: read will find out, and wait
		m.bulk = false
		return nil
	}
	m.bulk = m.n >= bufferSize
	m.says()
	rest, err := m.pour()
	if err != nil {
		return &writeError{err}
	}
	return m.write(rest)
}

// awaitRoom waits until the destination accepts bytes.
func (m *mover) awaitRoom() error {
	for {
		err := m.out.Write(m.gaugeFn)
		if err == nil {
			return nil
		}
		switch end, goOn := m.pair.expired(m, destination, err); {
		case end && m.sourceHasBytes():
			return errStuck
		case end:
			return errIdle
		case !goOn:
			return &writeError{err}
		}
	}
}

// gaugeRoom makes package net wait while the destination is full.
func (m *mover) gaugeRoom(fd uintptr) bool {
	m.room = sys.Room(int(fd))
	return m.room > 0
}

func (m *mover) sourceHasBytes() (has bool) {
	err := m.in.Control(func(fd uintptr) { has = sys.HasBytes(int(fd)) })
	return err == nil && has
}

// fillPipe splices into a pipe, and keeps the pipe only if it got bytes. A splice that returns no bytes does not prove
// the end of the stream. splice(2) stops at urgent data, and returns 0 there if the end comes behind that data.
func (m *mover) fillPipe(fd uintptr) bool {
	m.err = nil
	p := m.pipes.get()
	if p == nil {
		return true
	}
	n, err := sys.Splice(int32(fd), p.W, min(p.most, m.room), noSocket)
	if err == 0 && n > 0 {
		m.pipe, m.n = p, n
		return true
	}
	m.pipes.put(p)
	switch {
	case sys.IsDenial(err):
		m.pipes.denied.Note(sys.CallSplice, err)
	case err != 0 && err != unix.EAGAIN:
		m.err = os.NewSyscallError("splice", err)
	}
	return true
}

// noSocket excludes these splices from injected faults, which are for the event loops.
const noSocket = -1

// pour writes the pipe's bytes to the destination and puts the pipe back. pour returns the bytes that the destination
// has not accepted.
func (m *mover) pour() (rest []byte, err error) {
	p := m.pipe
	m.left, m.err = m.n, nil
	err = m.out.Write(m.drainFn)
	if err == nil {
		err = m.err
	}
	m.pipe = nil
	if err == nil && (m.left > 0 || m.n == p.most) {
		m.pipes.learn(m.n, m.left)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // nothing was tried; write decides whether this is the end
		err = nil
	}
	if err == nil && m.left > 0 {
		rest, err = p.Unload(m.left)
	}
	if err != nil {
		m.pipes.discard(p)
		return nil, err
	}
	m.pipes.put(p)
	return rest, nil
}

// drainPipe splices from the pipe while the destination accepts bytes.
func (m *mover) drainPipe(fd uintptr) bool {
	for m.left > 0 {
		n, err := sys.Splice(m.pipe.R, int32(fd), m.left, noSocket)
		switch {
		case err == 0:
			m.countMoved(n)
			m.left -= n
		case err == unix.EAGAIN: // the destination accepts less than the kernel said; see pipePool.learn
			return true
		case sys.IsDenial(err):
			m.pipes.denied.Note(sys.CallSplice, err)
			return true
		default:
			m.err = os.NewSyscallError("splice", err)
			return true
		}
	}
	return true
}
