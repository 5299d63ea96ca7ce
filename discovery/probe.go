package discovery

import (
	"context"
	"fmt"
	"sync"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// An epoch is a time during which something held, as that the agent answered. Queries that are under way at its end end too. Safe for
// concurrent use.
type epoch struct {
	spared func(w *watch) bool // whose query does not end; nil: nobody's

	mu    sync.Mutex
	under map[*watch]context.CancelCauseFunc // way: the one query of each
}

func newEpoch(spared func(w *watch) bool) *epoch {
	return &epoch{spared: spared, under: map[*watch]context.CancelCauseFunc{}}
}

// join makes the query of w, which cancel ends, one of the epoch's, until leave.
func (e *epoch) join(w *watch, cancel context.CancelCauseFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.under[w] = cancel
}

func (e *epoch) leave(w *watch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.under, w)
}

// end ends the epoch because of cause, and begins the next.
func (e *epoch) end(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for w, cancel := range e.under {
		if e.spared == nil || !e.spared(w) {
			cancel(cause)
		}
	}
}

// probe finds out that the agent hangs (stopped, starved, its host cut off) much earlier than blocking queries would, for which
// silence is normal: their deadlines are most of a minute away. All watches share this one, and it sends nothing as long as
// anything else was answered lately. The agent answers the probe by itself, so no election or lost server makes it fail. A
// single failure may be a full queue; the second ends the blocking queries, and each watch then asks afresh.
func (c *Consul) probe(ctx context.Context) {
	interval := c.options.ProbeInterval
	pause := interval
	for sleep(ctx, pause) {
		if pause = interval - c.client.Silence(); pause > 0 {
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
	err := c.client.Ping(ctx)
	return err == nil || ctx.Err() == nil
}

// errSilent ends blocking queries when a probe found that the agent does not answer.
var errSilent = fmt.Errorf("the agent does not answer: no reply to two probes of %v", probeTimeout)

// isSlow tells whether err came of waiting in vain.
func isSlow(err error) bool {
	_, timeout := err.(*consul.TimeoutError)
	return timeout || err == errSilent
}
