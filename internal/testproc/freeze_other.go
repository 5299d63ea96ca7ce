//go:build unix && !linux

package testproc

import "syscall"

// Freeze stops a process with SIGSTOP. A process that has ended is no error.
func Freeze(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != syscall.ESRCH {
		return err
	}
	return nil
}
