// Package deadline limits how long a program waits for an answer from the network, without losing an answer that came
// in time.
//
// A process may be paused by SIGSTOP, a frozen cgroup or a suspended virtual machine. When it continues, its timers are
// due, and network data has arrived meanwhile. With the packages context and time, the timers win. A timer of this
// package expires only if the process was running during the last part of the timeout. The waiting goroutine then has
// had a chance to see the data. The timeout may be exceeded by that last part.
//
//	ctx, cancel := deadline.WithTimeout(ctx, time.Second)
//	defer cancel()
//	conn, err := dialer.DialContext(ctx, "tcp", addr)
//
// Use package context for other waits, such as for a grace period.
package deadline

import (
	"sync"
	"time"
)

// grace is how long a process must have been running before a timeout expires.
const grace = 50 * time.Millisecond

// maxLooks limits how often a timeout is extended, because a process without enough processor time is late each time.
const maxLooks = 5

// A timer calls a function after a time. The methods of a timer are safe for concurrent use.
type timer struct {
	f    func()
	last time.Duration // the last part of the timeout

	// arrived reports whether the awaited event has happened, though no goroutine has seen it yet. The timer does not
	// expire then. A nil arrived means that this is unknown.
	arrived func() bool

	mu    sync.Mutex
	timer *time.Timer
	due   time.Time // end of the last part
	looks int       // how often the last part began
	over  bool      // f or stop was called
}

// start starts a timer that calls f in a goroutine of its own after d. If d is zero or negative, the timer expires at
// once. The field timer.arrived describes arrived.
func start(d time.Duration, f func(), arrived func() bool) *timer {
	d = max(d, 0)
	t := &timer{f: f, last: min(grace, d/2), arrived: arrived}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(d-t.last, t.fire)
	return t
}

// stop prevents the call of f. stop returns false if f was called or stop was called before.
func (t *timer) stop() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	stopped := !t.over
	t.over = true
	t.timer.Stop()
	return stopped
}

func (t *timer) fire() {
	if t.expires() {
		t.f()
	}
}

// expires reports whether the timeout is over. If not, the last part of the timeout begins (again).
func (t *timer) expires() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return false
	}
	now := time.Now()
	if t.looks > 0 && (now.Sub(t.due) < grace || t.looks >= maxLooks) && (t.arrived == nil || !t.arrived()) {
		t.over = true
		return true
	}
	last := t.last
	if t.looks++; t.looks > 1 {
		last = max(last, time.Millisecond) // at least a millisecond, so that the timer does not spin
	}
	t.due = now.Add(last)
	t.timer.Reset(last)
	return false
}
