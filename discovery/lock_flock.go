//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package discovery

import (
	"os"
	"syscall"
)

// flock is replaced in tests.
var flock = syscall.Flock

// tryLock locks a file. held is true if another open file has the lock. The lock ends when f is closed or its process
// ends. An error means that the file cannot be locked at all, as on some network file systems.
func tryLock(f *os.File) (held bool, err error) {
	for {
		switch err := flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err {
		case syscall.EINTR: // interrupted: try again
		case syscall.EWOULDBLOCK:
			return true, nil
		default:
			return false, err
		}
	}
}
