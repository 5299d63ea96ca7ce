//go:build !unix

package proxy

import "net"

// gone tells nothing here.
func gone(*net.TCPConn) bool { return false }

// deserted tells nothing here.
func deserted(*net.TCPConn) bool { return false }

// unsent tells nothing here.
func unsent(*net.TCPConn) int { return 0 }
