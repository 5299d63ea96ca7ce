//go:build !unix

package proxy

import "net"

// connGone tells nothing here.
func connGone(*net.TCPConn) bool { return false }

// connDeserted tells nothing here.
func connDeserted(*net.TCPConn) *clientError { return nil }

// connUnsent tells nothing here.
func connUnsent(*net.TCPConn) int { return 0 }
