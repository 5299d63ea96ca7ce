//go:build !unix

package proxy

import (
	"net"
	"syscall"
	"time"
)

// connGone tells nothing here.
func connGone(*net.TCPConn) bool { return false }

// connDeserted tells nothing here.
func connDeserted(*net.TCPConn) *clientError { return nil }

// connReadable tells nothing here.
func connReadable(syscall.Conn) bool { return false }

// connWritable tells nothing here.
func connWritable(syscall.Conn) bool { return false }

// connUnanswered tells nothing here.
func connUnanswered(*net.TCPConn) time.Duration { return 0 }

// connUnsent tells nothing here.
func connUnsent(*net.TCPConn) int { return 0 }
