package testproc

import "syscall"

// reserve takes a name that one process of this network namespace can have, and reports whether it did. The name is
// that of an abstract socket (unix(7)), which the kernel frees when the process ends.
func reserve(name string) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if syscall.Bind(fd, &syscall.SockaddrUnix{Name: "@" + name}) != nil {
		_ = syscall.Close(fd)
		return false
	}
	return true
}
