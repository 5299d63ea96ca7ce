//go:build !unix

package proxy

import "net"

// urgentInline does nothing here.
func urgentInline(*net.TCPConn) {}
