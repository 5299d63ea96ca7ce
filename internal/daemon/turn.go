package daemon

import (
	"context"
	"time"
)

// Nothing that a signal, the watchdog or a probe needs may wait for something outside of this process: a disk, a file
// server, Consul, a program that is started. So there are two kinds of locks. A sync.Mutex is held for moments, and by
// nobody who waits for anything else. A turn may be held for as long as the outside takes, and whoever wants it next
// can give up.

// A turn is had by one at a time.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn until ctx ends, which it returns the cause of.
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

// giveBack is for whoever has taken the turn.
func (t turn) giveBack() { <-t }

// takeWithin waits for the turn for so long, and reports whether it has it.
func (t turn) takeWithin(limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return t.take(ctx) == nil
}

// within runs f, and reports whether it has returned before limit. If not, f goes on.
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
