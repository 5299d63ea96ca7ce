package sys

import (
	"time"

	"golang.org/x/sys/unix"
)

// GiveWay leaves the processor of the calling thread to other threads: for about rest, and then until those that want
// it have run. See nanosleep(2) and sched_yield(2). The kernel prefers a thread that has slept, therefore the second
// step. The Go scheduler is informed, because the other threads may run for milliseconds, and the garbage collector
// must not wait for that.
func GiveWay(rest time.Duration) {
	ts := unix.NsecToTimespec(int64(rest))
	_ = unix.Nanosleep(&ts, nil) // a signal may end it early
	_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
}
