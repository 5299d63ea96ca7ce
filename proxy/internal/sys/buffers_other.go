//go:build !linux

package sys

import (
	"net"
	"syscall"
)

// GrowReceiveBufferConn asks for a receive buffer of size bytes. The system may grant less.
func (d *Denials) GrowReceiveBufferConn(c *net.UDPConn, size int) { _ = c.SetReadBuffer(size) }

// GrowSendBufferConn asks for a send buffer of size bytes. The system may grant less.
func (d *Denials) GrowSendBufferConn(c *net.UDPConn, size int) { _ = c.SetWriteBuffer(size) }

// DropsConn returns false: the number of drops is unknown on this system.
func DropsConn(syscall.Conn) (n uint32, ok bool) { return 0, false }
