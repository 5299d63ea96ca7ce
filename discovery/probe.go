package discovery

import (
	"context"
	"fmt"
	"sync"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// An epoch is a time during which something held, as that the agent answered. Queries that are inFlight way at its end end too. Safe for
// concurrent use.
type epoch struct {
	spared func(p *poller) bool // whose query does not end; nil: nobody's

	mu       sync.Mutex
	inFlight map[*poller]context.CancelCauseFunc // cancels the query of each poller
}

func newEpoch(spared func(p *poller) bool) *epoch {
	return &epoch{spared: spared, inFlight: map[*poller]context.CancelCauseFunc{}}
}

// join makes the query of p, which cancel ends, one of the epoch's, until leave.
func (e *epoch) join(p *poller, cancel context.CancelCauseFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inFlight[p] = cancel
}

func (e *epoch) leave(p *poller) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.inFlight, p)
}

// end ends the epoch because of cause, and begins the next.
func (e *epoch) end(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for p, cancel := range e.inFlight {
		if e.spared == nil || !e.spared(p) {
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
