//go:build unix

package proxy

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// closeSession closes the descriptor of a session that is not taken over.
func closeSession(fd int) { _ = unix.Close(fd) }

// duplicateFD returns a duplicate of fd that is closed on exec.
func duplicateFD(fd int) (int, error) {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return d, os.NewSyscallError("fcntl", err)
}

// duplicateConn returns a duplicate of the descriptor of c. Unlike File.Fd, it does not make the socket blocking.
func duplicateConn(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	if control := raw.Control(func(from uintptr) { fd, err = duplicateFD(int(from)) }); control != nil {
		return -1, control
	}
	return fd, err
}
