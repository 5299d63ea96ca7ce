package proxy

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// setShared has the kernel let other sockets of this user bind to the port of fd, on overlapping addresses, or no longer. It must be so
// for both, and Linux takes it after the bind too. It is on for no longer than a change takes, for it lets everybody of this user in;
// for TCP the kernel may remember it as long as the port is in use.
func setShared(fd int, on bool) error {
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

// duplicate returns a descriptor of the open socket f. Unlike File.Fd it leaves the socket as it is: that would have it block.
func duplicate(f *os.File) (fd int, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	if control := c.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); control != nil {
		return -1, control
	}
	return fd, os.NewSyscallError("fcntl", err)
}
