package needs

import (
	"syscall"
	"unsafe"
)

func init() {
	call, err := denied()
	if err == 0 {
		return
	}
	text := "lictor: the system denies " + call + ": " + err.Error() + " (Go programs need epoll_create1, epoll_ctl, " +
		"epoll_pwait and eventfd2 for the network: allow them, for example in the seccomp profile)\n"
	_, _ = syscall.Write(2, []byte(text)) // an error has no other receiver
	syscall.Exit(1)
}

// denied returns the first system call of the runtime's network poller that the system denies, and the error. The error
// is zero if all calls are allowed. denied ignores temporary errors, such as too many open files.
func denied() (call string, err syscall.Errno) {
	const closeOnExec, nonBlocking = syscall.O_CLOEXEC, syscall.O_NONBLOCK // both calls have the same flags
	epoll, _, err := syscall.RawSyscall(syscall.SYS_EPOLL_CREATE1, closeOnExec, 0, 0)
	if err != 0 {
		return "epoll_create1", unlessPasses(err)
	}
	defer closeFD(epoll)
	event, _, err := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, closeOnExec|nonBlocking, 0)
	if err != 0 {
		return "eventfd2", unlessPasses(err)
	}
	defer closeFD(event)
	e := syscall.EpollEvent{Events: syscall.EPOLLIN}
	_, _, err = syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, epoll, syscall.EPOLL_CTL_ADD, event,
		uintptr(unsafe.Pointer(&e)), 0, 0)
	if err != 0 {
		return "epoll_ctl", unlessPasses(err)
	}
	_, _, err = syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&e)), 1, 0, 0, 0)
	return "epoll_pwait", unlessPasses(err)
}

// unlessPasses returns err if err says that a call is denied, and zero otherwise.
func unlessPasses(err syscall.Errno) syscall.Errno {
	switch err {
	case syscall.EPERM, syscall.EACCES, syscall.ENOSYS, syscall.EINVAL, syscall.EOPNOTSUPP:
		return err
	}
	return 0
}

func closeFD(fd uintptr) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0) }
