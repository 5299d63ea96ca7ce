package testproc

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// Patience is how long a test waits for what happens at all. It only ends tests that would fail anyway.
const Patience = time.Minute

// Await waits until ok, which it calls every 5 ms. It fails the test, and says what was waited for, when Patience is
// over.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for this: %s", Patience, what)
		}
	}
}

// Poll calls check, every 5 ms, until it returns nil or ctx ends; then it returns what check said last.
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
