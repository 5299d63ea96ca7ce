package deadline

import (
	"context"
	"sync/atomic"
	"time"
)

// WithTimeout is context.WithTimeout by a timer. The context hides when it ends from its method Deadline, because
// package net would set its own timers by that; see End.
func WithTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return WithTimeoutCause(parent, d, context.DeadlineExceeded)
}

// WithTimeoutCause is WithTimeout with the cause that context.Cause returns when the time is over.
func WithTimeoutCause(parent context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancelCause(parent)
	ctx := &timeoutContext{Context: inner, end: time.Now().Add(d), done: make(chan struct{})}
	context.AfterFunc(inner, func() { close(ctx.done) })
	if end, ok := End(parent); ok && end.Before(ctx.end) {
		ctx.end = end
	}
	ctx.outer, _ = parent.Value(contextKey{}).(*timeoutContext)
	late := start(d, func() {
		ctx.expired.Store(true)
		cancel(cause)
	}, ctx.hasArrived)
	return ctx, func() {
		late.stop()
		cancel(nil)
	}
}

// End returns when ctx ends by its timeout; false if it has none.
func End(ctx context.Context) (time.Time, bool) {
	if c, ok := ctx.Value(contextKey{}).(*timeoutContext); ok {
		return c.end, true
	}
	return ctx.Deadline()
}

// contextKey is the key of the innermost timeoutContext among the values of a context.
type contextKey struct{}

// A timeoutContext is a context from WithTimeout.
type timeoutContext struct {
	context.Context
	outer   *timeoutContext // nil: none
	end     time.Time
	expired atomic.Bool
	done    chan struct{}               // closed after the inner context was cancelled
	arrived atomic.Pointer[func() bool] // see timer
}

func (c *timeoutContext) hasArrived() bool {
	arrived := c.arrived.Load()
	return arrived != nil && (*arrived)()
}

// expect makes arrived that of all timeouts of ctx.
func expect(ctx context.Context, arrived *func() bool) {
	c, _ := ctx.Value(contextKey{}).(*timeoutContext)
	for ; c != nil; c = c.outer {
		c.arrived.Store(arrived)
	}
}

// Done implements context.Context. It is not the channel of the inner context: then contexts that are made of c would
// be cancelled by that one, and take over its error in place of c's.
func (c *timeoutContext) Done() <-chan struct{} { return c.done }

// AfterFunc is what package context calls to cancel contexts that are made of c.
func (c *timeoutContext) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(c.Context, f)
}

// Err implements context.Context.
func (c *timeoutContext) Err() error {
	err := c.Context.Err()
	if err != nil && c.expired.Load() {
		return context.DeadlineExceeded
	}
	return err
}

// Value implements context.Context.
func (c *timeoutContext) Value(key any) any {
	if key == (contextKey{}) {
		return c
	}
	return c.Context.Value(key)
}
