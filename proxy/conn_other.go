//go:build !unix

package proxy

import (
	"syscall"
	"time"
)

// connGone always returns false here.
func connGone(streamConn) bool { return false }

// connDeserted always returns nil here.
func connDeserted(streamConn) *clientError { return nil }

// connReadable always returns false here.
func connReadable(syscall.Conn) bool { return false }

// connWritable always returns false here.
func connWritable(syscall.Conn) bool { return false }

// connUnanswered always returns 0 here.
func connUnanswered(streamConn) time.Duration { return 0 }

// connUnsent always returns 0 here.
func connUnsent(streamConn) int { return 0 }
