package daemon

import (
	"context"
	"time"
)

// A turn is a lock whose holder may wait for something outside of this process: a disk, a file server, Consul, a
// program that is started. So a goroutine that wants it can give up. Nothing that a signal, the watchdog or a probe
// needs takes it.
//
// A sync.Mutex of this package is held for moments only, and its holder waits for nothing.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn. If ctx ends first, it returns the cause of that.
func (t turn) take(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// giveBack gives the turn back, which the caller has taken.
func (t turn) giveBack() { <-t }

// takeWithin waits for the turn, at most for limit, and reports whether it has it.
func (t turn) takeWithin(limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return t.take(ctx) == nil
}

// within runs f, and reports whether it has returned before limit. If it has not, it goes on.
func within(limit time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}
