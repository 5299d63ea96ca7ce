//go:build unix

package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Peek reports how many bytes can be read from a socket now, 0 or 1, and leaves them there. Zero without an error means
// that the peer has ended its side. EAGAIN means that nothing has come. It does not wait.
func Peek(fd int) (int, error) {
	var b [1]byte
	for {
		n, _, err := syscall.Recvfrom(fd, b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// Readable reports whether there is something to read from a socket, its end and an error included. It takes nothing,
// and leaves the error where it is. If the system does not tell, it is false.
func Readable(fd int) bool { return pollFor(fd, unix.POLLIN) }

// Writable reports whether there is room to write to a socket, or an error. Otherwise it is as Readable.
func Writable(fd int) bool { return pollFor(fd, unix.POLLOUT) }

func pollFor(fd int, events int16) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return err == nil && n > 0
		}
	}
}
