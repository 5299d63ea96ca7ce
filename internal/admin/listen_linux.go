package admin

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// shared lets other sockets of this user bind to the port of c, or forbids it again. Linux allows to change
// SO_REUSEPORT after the bind too.
func shared(c syscall.RawConn, on bool) (err error) {
	value := 0
	if on {
		value = 1
	}
	if control := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, value)
	}); control != nil {
		return control
	}
	return os.NewSyscallError("setsockopt", err)
}
