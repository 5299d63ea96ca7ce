package sys

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// SetReusePort has the kernel let other sockets of this user bind to the port of fd, on overlapping addresses, or no
// longer. It must be so for both, and Linux takes it after the bind too. It is on for no longer than a change takes,
// for it lets everybody of this user in; for TCP the kernel may remember it as long as the port is in use.
func SetReusePort(fd int, on bool) error {
	if err := faultDenied(CallSharePort); err != 0 {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, Boolean(on)))
}

// ReusePort is a net.ListenConfig.Control.
func ReusePort(_, _ string, c syscall.RawConn) error { return SetReusePortConn(c, true) }

// SetReusePortConn is SetReusePort for a socket of package net.
func SetReusePortConn(c syscall.RawConn, on bool) (err error) {
	if control := c.Control(func(fd uintptr) { err = SetReusePort(int(fd), on) }); control != nil {
		return control
	}
	return err
}

// DisableGRO has the kernel join no datagrams on their way in, as the loops of an earlier process may have wanted.
func DisableGRO(c syscall.Conn) {
	if raw, err := c.SyscallConn(); err == nil {
		// Control fails for a socket that is closed.
		_ = raw.Control(func(fd uintptr) { SetOption(int32(fd), unix.SOL_UDP, unix.UDP_GRO, 0) })
	}
}
