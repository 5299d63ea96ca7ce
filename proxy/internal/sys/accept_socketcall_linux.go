//go:build linux && (386 || s390x)

package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawAccept calls accept(2), which these architectures provide only through socketcall(2).
func rawAccept(fd uintptr, sa unsafe.Pointer, size *uint32) (uintptr, syscall.Errno) {
	const sysAccept = 5 // SYS_ACCEPT of linux/net.h
	args := [3]uintptr{fd, uintptr(sa), uintptr(unsafe.Pointer(size))}
	c, _, err := unix.RawSyscall(unix.SYS_SOCKETCALL, sysAccept, uintptr(unsafe.Pointer(&args)), 0)
	return c, err
}
