package proxy

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// spliceSome moves what one splice gets from the source. That is no more than the destination takes now, so that
// the mover waits for neither of them with a pipe in hand.
func (m *mover) spliceSome() error {
	if err := m.awaitRoom(); err != nil {
		return err
	}
	if err := m.await(m.in, m.fillFn); err != nil {
		return err
	}
	if m.pipe == nil { // no pipe to be had, or nothing for it: let read find out what there is, and wait
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

// awaitRoom waits until the destination takes something.
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

// gaugeRoom has package net wait while the destination is full.
func (m *mover) gaugeRoom(fd uintptr) bool {
	m.room = sys.Room(int(fd))
	return m.room > 0
}

func (m *mover) sourceHasBytes() (has bool) {
	err := m.in.Control(func(fd uintptr) { has = sys.HasBytes(int(fd)) })
	return err == nil && has
}

// fillPipe splices into a pipe that it holds only if there was something to splice. That splice finds nothing, or
// the end, is not to be believed: it stops at urgent data, and says so if the end has come behind it.
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

// noSocket has splice see no faults of the loops.
const noSocket = -1

// pour writes what is in the pipe to the destination, gives the pipe back, and returns what the destination has left.
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
	if errors.Is(err, os.ErrDeadlineExceeded) { // then it has not tried; whether that is the end is for write to say
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

// drainPipe splices from the pipe as long as the destination takes something.
func (m *mover) drainPipe(fd uintptr) bool {
	for m.left > 0 {
		n, err := sys.Splice(m.pipe.R, int32(fd), m.left, noSocket)
		switch {
		case err == 0:
			m.countMoved(n)
			m.left -= n
		case err == unix.EAGAIN: // the destination takes less than the kernel said; see pipePool.learn
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
