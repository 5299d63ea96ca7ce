//go:build unix

package proxy

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// A mover moves the bytes of one direction of a pair.
//
// It waits for its source without holding anything: neither a buffer nor a pipe. Small messages go through a pooled
// buffer, by read and write. When a read fills the buffer, there is more to come, and the mover goes on by
// splice(2), where there is that and a pipe to be had, until its source gives less. It holds a pipe only between a
// read and the write that follows.
type mover struct {
	pair     *portablePair
	src, dst *net.TCPConn
	pipes    *pipePool
	moved    *atomic.Int64 // by this direction
	total    *atomic.Int64 // by all of the service

	in, out syscall.RawConn
	bulk    bool

	// Results of the last call that waited; the closures that RawConn wants are made once.
	buf     *[bufferSize]byte
	pipe    *pipe
	n       int
	left    int // of n, in the pipe
	room    int // in the destination
	err     error
	readFn  func(fd uintptr) bool
	gaugeFn func(fd uintptr) bool
	fillFn  func(fd uintptr) bool
	drainFn func(fd uintptr) bool
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// run moves bytes until the source ends, with io.EOF, or something fails: errIdle, a *writeError, or what reading said.
func (m *mover) run() error {
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

// await runs f on the source until it has done something, waiting for the source to become readable in between.
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

// copySome moves what one read gets.
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

// readSome reads into a buffer that it holds only if there was something to read.
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
