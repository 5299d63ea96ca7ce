package upgrade

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// standBeside makes cmd start as a child of this process's parent if that is a service manager, which NOTIFY_SOCKET
// says. systemd waits for the end of a main process only if that is its own child. A successor that is a child of this
// process would get SIGTERM and, at once, SIGKILL. The first process of a PID namespace has no parent there, see
// clone(2), CLONE_PARENT.
func standBeside(cmd *exec.Cmd) {
	if os.Getenv("NOTIFY_SOCKET") != "" && os.Getpid() != 1 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_PARENT}
	}
}

// waitFor waits until the process of cmd has ended. If that is a child of this process, waitFor also reaps it.
func waitFor(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		_ = cmd.Wait() // ProcessState has the result
		return
	}
	err := cmd.Process.WithHandle(func(fd uintptr) { // readable when the process has ended, see pidfd_open(2)
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for _, err := unix.Poll(p, -1); err == unix.EINTR; _, err = unix.Poll(p, -1) {
		}
	})
	for err != nil && !errors.Is(syscall.Kill(cmd.Process.Pid, 0), syscall.ESRCH) { // the system has no such handles
		time.Sleep(lookEvery)
	}
}

// lookEvery is the time between two looks for a process without a handle.
const lookEvery = 100 * time.Millisecond
