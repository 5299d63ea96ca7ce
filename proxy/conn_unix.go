//go:build unix

package proxy

import (
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file asks the kernel for the state of connections of package net.

// connGone reports whether the kernel considers the connection closed. connGone returns false where the system does not
// tell.
func connGone(c streamConn) bool { return isTrueOf(c, sys.Gone) }

// connDeserted waits until the client closes or resets the connection, or the read deadline passes. connDeserted
// returns nil if the deadline passes first. connDeserted also returns nil as soon as the client has sent data, because
// an end behind unread data cannot be seen.
func connDeserted(c streamConn) (gone *clientError) {
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

// connReadable reports whether c has something to read. The error of a datagram also counts as something to read.
func connReadable(c syscall.Conn) bool { return isTrueOf(c, sys.Readable) }

// connWritable reports whether a write to c would succeed or fail at once.
func connWritable(c syscall.Conn) bool { return isTrueOf(c, sys.Writable) }

// isTrueOf calls ask with the descriptor of c. isTrueOf returns false if c is closed.
func isTrueOf(c syscall.Conn, ask func(fd int) bool) (is bool) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { is = ask(int(fd)) })
	}
	return is
}

// connUnanswered returns how long the peer of c has acknowledged nothing of what was sent to it; see sys.Unanswered.
func connUnanswered(c streamConn) (waited time.Duration) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { waited = sys.Unanswered(int(fd)) })
	}
	return waited
}

// connUnsent returns how many bytes written to c its peer has not acknowledged. connUnsent returns 0 where the system
// does not tell.
func connUnsent(c streamConn) int {
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
