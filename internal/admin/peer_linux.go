package admin

import (
	"os"

	"golang.org/x/sys/unix"
)

// credentials returns the user ID of the process that listens at the other end of a Unix socket.
func credentials(fd int) (uint32, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	return c.Uid, nil
}
