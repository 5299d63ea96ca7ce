package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// PlainListener returns a listener that accepts connections from l. PlainListener uses accept(2) where the system
// denies accept4(2), which package net needs. Close closes l.
func PlainListener(l net.Listener) net.Listener { return &plainListener{Listener: l} }

type plainListener struct {
	net.Listener

	mu     sync.Mutex
	file   *os.File // a duplicate of the socket to accept from; nil unless accept4 is denied. Guarded by mu
	closed bool     // the listener is closed; guarded by mu
}

// Accept implements net.Listener.
func (l *plainListener) Accept() (net.Conn, error) {
	file := l.plain()
	if file == nil {
		c, err := l.Listener.Accept()
		if err == nil || !sys.AcceptDenied(err) {
			return c, err
		}
		if file = l.goPlain(); file == nil {
			return nil, err
		}
	}
	c, err := acceptConn(file)
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	if err != nil { // lets callers see whether the error is temporary
		return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: err}
	}
	return c, nil
}

// Close implements net.Listener.
func (l *plainListener) Close() error {
	l.mu.Lock()
	l.closed = true
	file := l.file
	l.mu.Unlock()
	if file != nil {
		_ = file.Close() // only a duplicate; the error of l is returned
	}
	return l.Listener.Close()
}

func (l *plainListener) plain() *os.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file
}

// goPlain switches to accept(2) for all further connections. goPlain returns the socket to accept from, or nil if that
// is not possible.
func (l *plainListener) goPlain() *os.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	socket, ok := l.Listener.(interface{ File() (*os.File, error) })
	if ok && l.file == nil && !l.closed {
		l.file, _ = socket.File() // nil after an error
	}
	return l.file
}

// acceptConn accepts a connection from a listening socket by accept(2).
func acceptConn(l *os.File) (net.Conn, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var file *os.File
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		file, failed = sys.AcceptFile(fd)
		return !errors.Is(failed, syscall.EAGAIN)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // FileConn duplicates it
	c, err := net.FileConn(file)
	if err == nil && c.RemoteAddr() == nil { // the connection was reset meanwhile
		_ = c.Close()
		return nil, errAborted
	}
	return c, err
}
