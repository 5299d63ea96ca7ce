package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// GrowReceiveBuffer asks for a receive buffer of size bytes. Without CAP_NET_ADMIN the kernel grants at most
// net.core.rmem_max.
func (d *Denials) GrowReceiveBuffer(fd int32, size int) {
	d.growBuffer(fd, size, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
}

// GrowSendBuffer asks for a send buffer of size bytes. Without CAP_NET_ADMIN the kernel grants at most
// net.core.wmem_max.
func (d *Denials) GrowSendBuffer(fd int32, size int) {
	d.growBuffer(fd, size, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
}

func (d *Denials) growBuffer(fd int32, size, forced, plain int) {
	if !d.unprivileged.Load() {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, forced, size) == nil {
			return
		}
		d.unprivileged.Store(true)
	}
	SetOption(fd, unix.SOL_SOCKET, plain, size)
}

// GrowReceiveBufferConn calls GrowReceiveBuffer for a socket of package net.
func (d *Denials) GrowReceiveBufferConn(c syscall.Conn, size int) {
	control(c, func(fd int32) { d.GrowReceiveBuffer(fd, size) })
}

// GrowSendBufferConn calls GrowSendBuffer for a socket of package net.
func (d *Denials) GrowSendBufferConn(c syscall.Conn, size int) {
	control(c, func(fd int32) { d.GrowSendBuffer(fd, size) })
}

// Drops returns the number of received datagrams that the kernel has dropped since the socket was opened. The counter
// wraps to zero after its largest value. ok is false if the system does not provide the number.
func Drops(fd int32) (n uint32, ok bool) {
	memory, err := sendMemory(int(fd))
	return memory[memoryDrops], err == 0
}

// DropsConn calls Drops for a socket of package net.
func DropsConn(c syscall.Conn) (n uint32, ok bool) {
	control(c, func(fd int32) { n, ok = Drops(fd) })
	return n, ok
}

// control calls f with the descriptor of a socket of package net, unless the socket is closed.
func control(c syscall.Conn, f func(fd int32)) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int32(fd)) })
	}
}
