//go:build unix

package proxy

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// A mover moves the bytes of one direction of a pair.
//
// While a mover waits for its source, it holds neither a buffer nor a pipe. A small message is moved by read and write,
// through a pooled buffer. After a read that fills the buffer, the mover uses splice(2) if the system has it and a pipe
// is free. The mover returns to read when the source gives less. A mover holds a pipe only between a read and the write
// that follows.
type mover struct {
	pair     *portablePair
	src, dst streamConn
	pipes    *pipePool
	moved    *atomic.Int64 // bytes moved by this direction
	total    *atomic.Int64 // bytes moved in this direction by the whole service
	opening  int           // bytes of the pair's header that are not written yet

	in, out syscall.RawConn
	bulk    bool

	// Results of the last call that waited. The closures for RawConn are made once.
	buf     *[bufferSize]byte
	pipe    *pipe
	n       int
	left    int // part of n bytes that is still in the pipe
	room    int // bytes that the destination accepts now
	err     error
	readFn  func(fd uintptr) bool
	gaugeFn func(fd uintptr) bool
	fillFn  func(fd uintptr) bool
	drainFn func(fd uintptr) bool
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// run moves bytes until the source ends or an error occurs. run returns io.EOF, errIdle, a *writeError, or the error of
// a read.
func (m *mover) run() error {
	if isSecure(m.src) || isSecure(m.dst) {
		return m.copyAll()
	}
	var err error
	if m.in, err = m.src.SyscallConn(); err != nil {
		return err
	}
	if m.out, err = m.dst.SyscallConn(); err != nil {
		return &writeError{err}
	}
	m.readFn, m.gaugeFn, m.fillFn, m.drainFn = m.readSome, m.gaugeRoom, m.fillPipe, m.drainPipe
	for {
		step := m.copySome
		if m.bulk {
			step = m.spliceSome
		}
		if err := step(); err != nil {
			return err
		}
	}
}

// await calls f until f has done something. Before each further call, await waits until the source is readable.
func (m *mover) await(c syscall.RawConn, f func(fd uintptr) bool) error {
	for {
		err := c.Read(f)
		if err == nil {
			return m.err
		}
		if end, goOn := m.pair.expired(m, source, err); end {
			return errIdle
		} else if !goOn {
			return err
		}
	}
}

// copySome moves the bytes of one read.
func (m *mover) copySome() error {
	if err := m.await(m.in, m.readFn); err != nil {
		return err
	}
	defer func() {
		buffers.Put(m.buf)
		m.buf = nil
	}()
	if m.n == 0 {
		return io.EOF
	}
	m.bulk = m.n == bufferSize && m.pipes.usable()
	return m.write(m.buf[:m.n])
}

// readSome reads into a pooled buffer, and keeps the buffer only if it got bytes.
func (m *mover) readSome(fd uintptr) bool {
	buf := buffers.Get().(*[bufferSize]byte)
	n, err := syscall.Read(int(fd), buf[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), buf[:])
	}
	if err != nil {
		buffers.Put(buf)
		m.err = os.NewSyscallError("read", err)
		return err != syscall.EAGAIN
	}
	m.buf, m.n, m.err = buf, n, nil
	return true
}
