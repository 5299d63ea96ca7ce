//go:build !linux

package sys

import (
	"net"
	"syscall"
)

// GrowReceiveBufferConn asks for a larger receive buffer. The system may give less.
func (d *Denials) GrowReceiveBufferConn(c *net.UDPConn, size int) { _ = c.SetReadBuffer(size) }

// GrowSendBufferConn asks for a larger send buffer. The system may give less.
func (d *Denials) GrowSendBufferConn(c *net.UDPConn, size int) { _ = c.SetWriteBuffer(size) }

// DropsConn returns false: the system does not tell.
func DropsConn(syscall.Conn) (n uint32, ok bool) { return 0, false }
