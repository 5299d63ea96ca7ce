package sys

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// SetReusePort makes the kernel allow, or stop allowing, other sockets of this user on the port of fd at overlapping
// addresses. Both sockets need the option, and Linux accepts it after the bind too. Keep the option on only during a
// change, because it admits any process of this user. For TCP the kernel may remember the option while the port is in
// use.
func SetReusePort(fd int, on bool) error {
	if err := faultDenied(CallSharePort); err != 0 {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, Boolean(on)))
}

// ReusePort sets the option on a new socket. ReusePort is a net.ListenConfig.Control function.
func ReusePort(_, _ string, c syscall.RawConn) error { return SetReusePortConn(c, true) }

// SetReusePortConn calls SetReusePort for a socket of package net.
func SetReusePortConn(c syscall.RawConn, on bool) (err error) {
	if control := c.Control(func(fd uintptr) { err = SetReusePort(int(fd), on) }); control != nil {
		return control
	}
	return err
}

// DisableGRO makes the kernel stop joining incoming datagrams, which the loops of an earlier process may have enabled.
func DisableGRO(c syscall.Conn) {
	if raw, err := c.SyscallConn(); err == nil {
		// Control fails if the socket is closed.
		_ = raw.Control(func(fd uintptr) { SetOption(int32(fd), unix.SOL_UDP, unix.UDP_GRO, 0) })
	}
}
