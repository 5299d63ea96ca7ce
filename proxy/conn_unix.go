//go:build unix

package proxy

import (
	"net"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This is what the kernel tells of the state of a connection of package net.

// connGone tells whether the connection is over for the kernel, where that tells.
func connGone(c *net.TCPConn) bool { return isTrueOf(c, sys.Gone) }

// connDeserted waits until the client ends its side, or the conn's read deadline passes. It returns nil then if the
// client has sent something or goes on: of one that has sent something, that cannot be told.
func connDeserted(c *net.TCPConn) (gone *clientError) {
	raw, err := c.SyscallConn()
	if err != nil {
		return &clientError{err}
	}
	_ = raw.Read(func(fd uintptr) bool {
		n, err := sys.Peek(int(fd))
		if err == syscall.EAGAIN {
			return false
		}
		if n == 0 {
			gone = &clientError{err}
		}
		return true
	})
	return gone
}

// connReadable reports whether there is something to read from c. An error of a datagram is something.
func connReadable(c syscall.Conn) bool { return isTrueOf(c, sys.Readable) }

// connWritable reports whether there is room to write to c, or an error that a write would have.
func connWritable(c syscall.Conn) bool { return isTrueOf(c, sys.Writable) }

// isTrueOf asks something of the descriptor of c. It is false if c is closed.
func isTrueOf(c syscall.Conn, ask func(fd int) bool) (is bool) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { is = ask(int(fd)) })
	}
	return is
}

// connUnanswered is for how long the peer of c has acknowledged nothing of what was sent to it; see sys.Unanswered.
func connUnanswered(c *net.TCPConn) (waited time.Duration) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { waited = sys.Unanswered(int(fd)) })
	}
	return waited
}

// connUnsent is how many bytes written to c its peer has not acknowledged, where the system tells.
func connUnsent(c *net.TCPConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	if raw.Control(func(fd uintptr) { n = sys.Unsent(int(fd)) }) != nil {
		return 0
	}
	return n
}
