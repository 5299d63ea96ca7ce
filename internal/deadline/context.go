package deadline

import (
	"context"
	"sync/atomic"
	"time"
)

// WithTimeout is context.WithTimeout with a timer of this package. The Deadline method of the returned context reports
// no deadline, because package net would set its own timers to it. Use End instead.
func WithTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return WithTimeoutCause(parent, d, context.DeadlineExceeded)
}

// WithTimeoutCause is WithTimeout with the cause that context.Cause returns after the timeout.
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

// End returns the time at which ctx ends by its timeout. End returns false if ctx has no timeout.
func End(ctx context.Context) (time.Time, bool) {
	if c, ok := ctx.Value(contextKey{}).(*timeoutContext); ok {
		return c.end, true
	}
	return ctx.Deadline()
}

// contextKey is the key of the innermost timeoutContext in the values of a context.
type contextKey struct{}

// A timeoutContext is a context made by WithTimeout or WithTimeoutCause.
type timeoutContext struct {
	context.Context
	outer   *timeoutContext // the next timeoutContext among the parents; nil if there is none
	end     time.Time
	expired atomic.Bool
	done    chan struct{}               // closed after the inner context is cancelled
	arrived atomic.Pointer[func() bool] // see timer
}

func (c *timeoutContext) hasArrived() bool {
	arrived := c.arrived.Load()
	return arrived != nil && (*arrived)()
}

// expect sets arrived for all timeouts of ctx.
func expect(ctx context.Context, arrived *func() bool) {
	c, _ := ctx.Value(contextKey{}).(*timeoutContext)
	for ; c != nil; c = c.outer {
		c.arrived.Store(arrived)
	}
}

// Done implements context.Context. Done returns a channel of its own. With the inner context's channel, package context
// would attach child contexts to the inner context, and they would get its error instead of c's.
func (c *timeoutContext) Done() <-chan struct{} { return c.done }

// AfterFunc lets package context cancel the child contexts of c.
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
