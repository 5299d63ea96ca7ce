// Package deadline bounds how long a program waits for an answer of the network, and is fair to an answer that came in
// time.
//
// A process that stands still (SIGSTOP, a frozen cgroup, a suspended virtual machine) finds its timers due when it goes
// on, together with what has arrived meanwhile. Package context and time let the timers win. The timers of this package
// believe that a time is over only if the process was running during the last part of it, so that whoever waits has had
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

// A Timer calls a function after a time. Its methods may be called concurrently.
type Timer struct {
	f    func()
	last time.Duration // the last part of the time

	// arrived reports whether what is waited for is there, though nobody has looked yet. The time is not over then.
	// Nil: that cannot be known.
	arrived func() bool

	mu    sync.Mutex
	timer *time.Timer
	due   time.Time // when the last part is over
	looks int       // how often the last part began
	over  bool      // f is called, or Stop was
}

// AfterFunc calls f in its own goroutine when d is over. Zero and negative times are over at once.
func AfterFunc(d time.Duration, f func()) *Timer { return start(d, f, nil) }

func start(d time.Duration, f func(), arrived func() bool) *Timer {
	d = max(d, 0)
	t := &Timer{f: f, last: min(grace, d/2), arrived: arrived}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(d-t.last, t.fire)
	return t
}

// Stop prevents that f is called. It returns false if f was called, or is stopped already.
func (t *Timer) Stop() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	stopped := !t.over
	t.over = true
	t.timer.Stop()
	return stopped
}

func (t *Timer) fire() {
	if t.expires() {
		t.f()
	}
}

// expires reports whether the time is over. If it is not, the last part of the time begins, or begins again.
func (t *Timer) expires() bool {
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
