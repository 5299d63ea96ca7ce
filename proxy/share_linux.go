package proxy

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// setShared has the kernel let other sockets of this user bind to the port of fd, on overlapping addresses, or no
// longer. It must be so for both, and Linux takes it after the bind too. It is on for no longer than a change takes,
// for it lets everybody of this user in; for TCP the kernel may remember it as long as the port is in use.
func setShared(fd int, on bool) error {
	if err := faultDenied(callSharePort); err != 0 {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, boolean(on)))
}

// sharePort is a net.ListenConfig.Control.
func sharePort(_, _ string, c syscall.RawConn) error { return shareConn(c, true) }

// shareConn is setShared for a socket of package net.
func shareConn(c syscall.RawConn, on bool) (err error) {
	if control := c.Control(func(fd uintptr) { err = setShared(int(fd), on) }); control != nil {
		return control
	}
	return err
}

// singly has the kernel join no datagrams on their way in, as the loops of an earlier process may have wanted.
func singly(c syscall.Conn) {
	if raw, err := c.SyscallConn(); err == nil {
		// Control fails for a socket that is closed.
		_ = raw.Control(func(fd uintptr) { setOption(int32(fd), unix.SOL_UDP, unix.UDP_GRO, 0) })
	}
}
