package proxy

import (
	"os"

	"golang.org/x/sys/unix"
)

// spliceSome moves what one splice gets from the source. The pipe is held only while bytes are in it.
func (m *mover) spliceSome() error {
	if err := m.await(m.in, m.fill); err != nil {
		return err
	}
	if m.pipe == nil { // no pipe to be had, or nothing for it: let read find out what there is, and wait
		m.bulk = false
		return nil
	}
	m.bulk = m.n >= bufferSize
	m.says()
	for m.n > 0 {
		if err := m.awaitWrite(); err != nil {
			m.pipes.discard(m.pipe) // there are bytes left in it
			m.pipe = nil
			return err
		}
	}
	m.pipes.put(m.pipe)
	m.pipe = nil
	return nil
}

// fillPipe splices into a pipe that it holds only if there was something to splice. That splice finds nothing, or the end, is not to be
// believed: it stops at urgent data, and says so if the end has come behind it.
func (m *mover) fillPipe(fd uintptr) bool {
	p := m.pipes.get()
	if p == nil {
		m.err = nil
		return true
	}
	n, err := unix.Splice(int(fd), nil, p.w, nil, p.size, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	for err == unix.EINTR {
		n, err = unix.Splice(int(fd), nil, p.w, nil, p.size, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	}
	m.err = nil
	if err != nil || n == 0 {
		m.pipes.put(p)
		if err != nil && err != unix.EAGAIN {
			m.err = os.NewSyscallError("splice", err)
		}
		return true
	}
	m.pipe, m.n = p, int(n)
	return true
}

// awaitWrite moves some of the pipe's bytes to the destination.
func (m *mover) awaitWrite() error {
	for {
		err := m.out.Write(m.drain)
		if err == nil {
			err = m.err
		}
		if err == nil {
			return nil
		}
		if end, goOn := m.pair.expired(err); end {
			return errStuck
		} else if !goOn {
			return &writeError{err}
		}
	}
}

func (m *mover) drainPipe(fd uintptr) bool {
	n, err := unix.Splice(m.pipe.r, nil, int(fd), nil, m.n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	for err == unix.EINTR {
		n, err = unix.Splice(m.pipe.r, nil, int(fd), nil, m.n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	}
	if err != nil {
		m.err = os.NewSyscallError("splice", err)
		return err != unix.EAGAIN
	}
	m.count(int(n))
	m.n, m.err = m.n-int(n), nil
	return true
}

// goneFD tells whether the connection is over for the kernel: reset, or given up. A peer that has only finished sending leaves it open.
func goneFD(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == unix.BPF_TCP_CLOSE
}

// unsentOf is how many bytes written to the socket its peer has not acknowledged.
func unsentOf(fd int) int {
	if fd < 0 {
		return 0
	}
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil || n == 0 {
		return 0
	}
	if goneFD(fd) {
		return 0 // a connection that is over delivers nothing any more
	}
	return n
}
