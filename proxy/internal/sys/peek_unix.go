//go:build unix

package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Peek returns how many bytes can be read from a socket now, 0 or 1, and leaves them in the socket. Zero without an
// error means that the peer has finished sending. EAGAIN means that no bytes have arrived. Peek does not wait.
func Peek(fd int) (int, error) {
	var b [1]byte
	for {
		n, _, err := syscall.Recvfrom(fd, b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// Readable reports whether a read from a socket would return at once with bytes, the end of the stream or an error.
// Readable takes nothing from the socket and does not clear the error. Readable returns false if the system does not
// say.
func Readable(fd int) bool { return pollFor(fd, unix.POLLIN) }

// Writable reports whether a write to a socket would return at once. Like Readable, it changes nothing.
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
