//go:build unix

package proxy

import (
	"net"
	"syscall"
)

// A transport is a session's socket. One goroutine may send while another goroutine receives.
type transport struct {
	conn *net.UDPConn
	raw  syscall.RawConn

	// These are the arguments and results of the closures for RawConn. The closures are made once, because each new
	// closure would be an allocation.
	out        []byte
	outErr     error
	transmitFn func(fd uintptr) bool
	in         *datagram
	inErr      error
	receiveFn  func(fd uintptr) bool
}

func (t *transport) use(c *net.UDPConn) (err error) {
	if t.raw, err = c.SyscallConn(); err != nil {
		return err
	}
	t.conn, t.transmitFn, t.receiveFn = c, t.transmitOne, t.takeOne
	return nil
}

// send sends one datagram. send does not wait: a full socket buffer is an error.
func (t *transport) send(b []byte) error {
	t.out = b
	err := t.raw.Write(t.transmitFn)
	t.out = nil
	if err != nil {
		return net.ErrClosed // there is no deadline, so the socket is closed
	}
	return t.outErr
}

func (t *transport) transmitOne(fd uintptr) bool {
	_, err := syscall.Write(int(fd), t.out)
	for err == syscall.EINTR {
		_, err = syscall.Write(int(fd), t.out)
	}
	t.outErr = nil
	if err != nil {
		t.outErr = err
	}
	return true
}

// receive waits for a datagram and holds no buffer meanwhile. The caller must free the datagram.
func (t *transport) receive() (*datagram, error) {
	if t.raw.Read(t.receiveFn) != nil {
		return nil, net.ErrClosed
	}
	d := t.in
	t.in = nil
	return d, t.inErr
}

func (t *transport) takeOne(fd uintptr) bool {
	d := datagramPool.Get().(*datagram)
	n, err := syscall.Read(int(fd), d.buf[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), d.buf[:])
	}
	if err != nil {
		d.free()
		t.inErr = err
		return err != syscall.EAGAIN
	}
	d.n = n
	t.in, t.inErr = d, nil
	return true
}
