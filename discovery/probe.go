package discovery

import (
	"context"
	"fmt"
	"sync"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// An epoch is a time during which something is true, for example that the agent answers. When the epoch ends, the
// queries that joined it are cancelled. Safe for concurrent use.
type epoch struct {
	spared func(p *poller) bool // reports whether the query of p is not to be cancelled; nil: all are

	mu       sync.Mutex
	inFlight map[*poller]context.CancelCauseFunc // cancels the query of each poller
}

// newEpoch returns an epoch. A nil spared spares no query.
func newEpoch(spared func(p *poller) bool) *epoch {
	return &epoch{spared: spared, inFlight: map[*poller]context.CancelCauseFunc{}}
}

// join has cancel called at the end of the epoch, unless leave is called before. A poller has one query at a time.
func (e *epoch) join(p *poller, cancel context.CancelCauseFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inFlight[p] = cancel
}

// leave ends what join has begun.
func (e *epoch) leave(p *poller) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.inFlight, p)
}

// end ends the epoch with this cause, and begins the next one.
func (e *epoch) end(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for p, cancel := range e.inFlight {
		if e.spared == nil || !e.spared(p) {
			cancel(cause)
		}
	}
}

// probe finds out that the agent hangs, because it was stopped, is starved, or its host was cut off. Blocking
// queries would notice only at their deadline, which is most of a minute away. All watches share one probe. It sends
// nothing while other requests are answered.
//
// The agent answers a probe without its servers, so that no election makes it fail. One failure may be due to a full
// queue. The second ends the blocking queries, and each watch then asks anew.
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

// ping reports whether the agent answers in time. A refused connection counts as an answer, as blocking queries
// notice it by themselves.
func (c *Consul) ping(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := c.client.Ping(ctx)
	return err == nil || ctx.Err() == nil
}

// errSilent ends blocking queries when a probe found that the agent does not answer.
var errSilent = fmt.Errorf("the agent does not answer: no reply to two probes of %v", probeTimeout)

// isSlow reports whether err is of a query that got no answer for a long time.
func isSlow(err error) bool {
	_, timeout := err.(*consul.TimeoutError)
	return timeout || err == errSilent
}
