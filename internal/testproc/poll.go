package testproc

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// Patience limits how long a test waits for an event. Only a failing test reaches the limit.
const Patience = time.Minute

// Await calls ok every 5 ms until it returns true. After Patience it fails the test, and names what was awaited.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
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

// Poll calls check every 5 ms until it returns nil or ctx ends. If ctx ends, Poll returns an error that wraps check's
// last error.
func Poll(ctx context.Context, check func() error) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w, after the last: %w", ctx.Err(), err)
		}
	}
}
