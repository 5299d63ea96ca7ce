//go:build linux && !386 && !s390x

package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawAccept calls accept(2).
func rawAccept(fd uintptr, sa unsafe.Pointer, size *uint32) (uintptr, syscall.Errno) {
	c, _, err := unix.RawSyscall(unix.SYS_ACCEPT, fd, uintptr(sa), uintptr(unsafe.Pointer(size)))
	return c, err
}
