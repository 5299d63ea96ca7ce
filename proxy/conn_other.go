//go:build !unix

package proxy

import (
	"net"
	"syscall"
	"time"
)

// connGone always returns false here.
func connGone(*net.TCPConn) bool { return false }

// connDeserted always returns nil here.
func connDeserted(*net.TCPConn) *clientError { return nil }

// connReadable always returns false here.
func connReadable(syscall.Conn) bool { return false }

// connWritable always returns false here.
func connWritable(syscall.Conn) bool { return false }

// connUnanswered always returns 0 here.
func connUnanswered(*net.TCPConn) time.Duration { return 0 }

// connUnsent always returns 0 here.
func connUnsent(*net.TCPConn) int { return 0 }
