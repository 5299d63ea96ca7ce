package daemon

import (
	"context"
	"time"
)

// A turn is a lock. The holder of a turn may wait for something outside this process: a disk, a file server, Consul, or
// a program that it starts. A goroutine that waits for a turn can give up. Signals, the watchdog and probes never need
// a turn.
//
// A sync.Mutex of this package is held only briefly, and its holder never waits.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take acquires the turn. If ctx ends first, it returns the cause.
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

// giveBack releases the turn. The caller must hold it.
func (t turn) giveBack() { <-t }

// takeWithin acquires the turn within limit, and reports whether it did.
func (t turn) takeWithin(limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return t.take(ctx) == nil
}

// within runs f, and reports whether f returned before limit. If f takes longer, f continues in its goroutine.
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
