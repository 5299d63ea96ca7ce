package sys

import "golang.org/x/sys/unix"

// LowerPriority raises the nice value of the calling thread by n, up to 19, so that the kernel prefers other threads.
// The goroutine must have locked the thread. Without a privilege the change is for ever: see setpriority(2), which is
// about threads on Linux. If the system denies the call, the thread keeps its priority.
func LowerPriority(n int) {
	if raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil { // the raw call returns 20 minus the nice value
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, min(20-raw+n, 19))
	}
}
