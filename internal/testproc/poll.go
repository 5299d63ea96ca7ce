package testproc

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// Patience limits how long a test waits for an event. Only a failing test reaches the limit.
const Patience = time.Minute

// pause returns the time between two looks at something that was first looked at when the wait began. What has taken
// long may be noticed a little later: looks take processor time from other tests.
func pause(began time.Time) time.Duration {
	return min(max(time.Since(began)/20, 5*time.Millisecond), 100*time.Millisecond)
}

// Await calls ok until it returns true: at first every 5 ms, then less often. After Patience it fails the test, and
// names what was awaited.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(pause(began)) {
		if time.Since(began) > Patience {
			t.Fatalf("waited %v for this: %s", Patience, what)
		}
	}
}

// Receive returns what from sends, or the zero value when from is closed. It fails the test, and says what was waited
// for, when Patience is over.
func Receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(Patience):
		t.Fatalf("waited %v for this: %s", Patience, what)
	}
	panic("unreachable")
}

// Returns fails the test when f has not returned after Patience. f runs in a goroutine of its own.
func Returns(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	Receive(t, what, done)
}

// Poll calls check until it returns nil or ctx ends: at first every 5 ms, then less often. If ctx ends, Poll returns an
// error that wraps check's last error.
func Poll(ctx context.Context, check func() error) error {
	for began := time.Now(); ; {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(pause(began)):
		case <-ctx.Done():
			return fmt.Errorf("%w, after the last: %w", ctx.Err(), err)
		}
	}
}
