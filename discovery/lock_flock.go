//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package discovery

import (
	"os"
	"syscall"
)

// flock is replaced by tests.
var flock = syscall.Flock

// tryLock locks a file, or reports that another open file has it locked. The lock ends when f is closed, or its process
// ends. An error means that the file cannot be locked at all, as on some network file systems.
func tryLock(f *os.File) (held bool, err error) {
	for {
		switch err := flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err {
		case syscall.EINTR: // it was not tried
		case syscall.EWOULDBLOCK:
			return true, nil
		default:
			return false, err
		}
	}
}
