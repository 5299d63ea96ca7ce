package proxy

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// What is posted to a loop that is awake runs, although nothing wakes the loop by its eventfd.
func TestPostToALoopThatIsAwake(t *testing.T) {
	onLoops(t, 1, func(t *testing.T, h *house) {
		h.start()
		l := h.engine.(*loopEngine).loops[0]
		entered, release := make(chan struct{}), make(chan struct{})
		l.post(func() {
			close(entered)
			<-release
		})
		<-entered
		var b [8]byte
		_, _ = unix.Read(l.wakefd, b[:]) // what has woken the loop before
		var ran atomic.Int64
		for range 100 {
			l.post(func() { ran.Add(1) })
		}
		if n, err := unix.Read(l.wakefd, b[:]); err != unix.EAGAIN {
			t.Errorf("the eventfd was written to: %d, %v", n, err)
		}
		close(release)
		l.do(func() {})
		if n := ran.Load(); n != 100 {
			t.Errorf("%d of 100 functions ran", n)
		}
	})
}
