package discovery

import (
	"context"
	"sync"
)

// An epoch is a time during which the agent answered. Blocking queries run under its context, so that all of them can be ended
// once the agent is known not to answer. Safe for concurrent use.
type epoch struct {
	parent context.Context

	mu     sync.Mutex
	ctx    context.Context // guarded by mu
	cancel context.CancelCauseFunc
}

func newEpoch(parent context.Context) *epoch {
	e := &epoch{parent: parent}
	e.ctx, e.cancel = context.WithCancelCause(parent)
	return e
}

// bound returns ctx made to end with the epoch too, for the same cause, unless spared says otherwise then. The function frees what that takes.
func (e *epoch) bound(ctx context.Context, spared func() bool) (context.Context, context.CancelFunc) {
	e.mu.Lock()
	current := e.ctx
	e.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(current, func() {
		if !spared() {
			cancel(context.Cause(current))
		}
	})
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

func never() bool { return false }

// end ends the epoch because of cause, and begins the next.
func (e *epoch) end(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cancel(cause)
	e.ctx, e.cancel = context.WithCancelCause(e.parent)
}

// probe finds out that the agent hangs (stopped, starved, its host cut off) much earlier than blocking queries would, for which
// silence is normal: their deadlines are most of a minute away. All watches share this one, and it sends nothing as long as
// anything else was answered lately. The agent answers the probe by itself, so no election or lost server makes it fail. A
// single failure may be a full queue; the second ends the blocking queries, and each watch then asks afresh.
func (c *Consul) probe(ctx context.Context) {
	interval := c.options.ProbeInterval
	pause := interval
	for sleep(ctx, pause) {
		if pause = interval - c.client.silence(); pause > 0 {
			continue
		}
		if pause = interval; c.watching() == 0 {
			continue
		}
		failed := 0
		for failed < 2 && !c.ping(ctx) {
			failed++
		}
		if failed == 2 && ctx.Err() == nil {
			c.epoch.end(errSilent)
		}
	}
}

// ping tells whether the agent answers in time. A refused connection counts as an answer: blocking queries learn of that by
// themselves.
func (c *Consul) ping(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := c.client.ping(ctx)
	return err == nil || ctx.Err() == nil
}

// isSlow tells whether err came of waiting in vain.
func isSlow(err error) bool {
	_, timeout := err.(*timeoutError)
	return timeout || err == errSilent
}
