//go:build unix

package deadline

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// isSettled reports whether a connecting socket has succeeded or failed.
func isSettled(c syscall.RawConn) (is bool) {
	_ = c.Control(func(fd uintptr) { // fails if the socket is closed
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		is = err == nil && n > 0
	})
	return is
}
