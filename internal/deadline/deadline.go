// Package deadline bounds how long a program waits for an answer of the network, and is fair to an answer that came in
// time.
//
// A process that stands still (SIGSTOP, a frozen cgroup, a suspended virtual machine) finds its timers due when it goes
// on, together with what has arrived meanwhile. Package context and time let the timers win. The timers of this package
// believe that a time is over only if the process was running during the last part of it, so that what waits has had
// a chance to look. The time may be exceeded by that part then.
//
//	ctx, cancel := deadline.WithTimeout(ctx, time.Second)
//	defer cancel()
//	conn, err := dialer.DialContext(ctx, "tcp", addr)
//
// For waits that are not for the network, such as for a grace period, use package context.
package deadline

import (
	"sync"
	"time"
)

// grace is how long a process must have been running before a time counts as over.
const grace = 50 * time.Millisecond

// maxLooks bounds how often a time is extended: a process that is starved is late each time.
const maxLooks = 5

// A timer calls a function after a time. Its methods may be called concurrently.
type timer struct {
	f    func()
	last time.Duration // the last part of the time

	// arrived reports whether what is waited for is there, though it was not looked at yet. The time is not over then.
	// Nil: that cannot be known.
	arrived func() bool

	mu    sync.Mutex
	timer *time.Timer
	due   time.Time // when the last part is over
	looks int       // how often the last part began
	over  bool      // f is called, or stop was
}

// start starts a timer that calls f in its own goroutine when d is over. Zero and negative times are over at once. For
// arrived see timer.
func start(d time.Duration, f func(), arrived func() bool) *timer {
	d = max(d, 0)
	t := &timer{f: f, last: min(grace, d/2), arrived: arrived}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(d-t.last, t.fire)
	return t
}

// stop prevents that f is called. It returns false if f was called, or is stopped already.
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

// expires reports whether the time is over. If it is not, the last part of the time begins, or begins again.
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
		last = max(last, time.Millisecond) // do not spin
	}
	t.due = now.Add(last)
	t.timer.Reset(last)
	return false
}
