//go:build unix

package discovery

import (
	"os"
	"syscall"
)

// tryLock locks a file, unless another open file has it locked. The lock ends when f is closed, or its process ends.
func tryLock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
