//go:build unix

package sys

import "syscall"

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
