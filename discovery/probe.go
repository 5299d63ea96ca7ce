package discovery

import (
	"context"
	"fmt"
	"sync"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// An epoch is a time during which a condition holds, for example that the agent answers. The end of an epoch cancels
// the queries that have joined it. An epoch is safe for concurrent use.
type epoch struct {
	spared func(p *poller) bool // reports whether the query of p must not be cancelled; nil: all are cancelled

	mu       sync.Mutex
	inFlight map[*poller]context.CancelCauseFunc // cancels the query of each poller
}

// newEpoch returns an epoch. A nil spared spares no query.
func newEpoch(spared func(p *poller) bool) *epoch {
	return &epoch{spared: spared, inFlight: map[*poller]context.CancelCauseFunc{}}
}

// join makes the end of the epoch call cancel, unless leave is called first. A poller has one query at a time.
func (e *epoch) join(p *poller, cancel context.CancelCauseFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inFlight[p] = cancel
}

// leave undoes join.
func (e *epoch) leave(p *poller) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.inFlight, p)
}

// end cancels the joined queries with the given cause, and begins the next epoch.
func (e *epoch) end(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for p, cancel := range e.inFlight {
		if e.spared == nil || !e.spared(p) {
			cancel(cause)
		}
	}
}

// probe detects that the agent hangs because it was stopped, lacks processor time, or is cut off from the network.
// Blocking queries would notice that only at their deadline, which is most of a minute away. All watches share one
// probe. While the agent answers other requests, probe sends nothing.
//
// The agent answers a probe without its servers, so probes do not fail during elections. One failed probe may be due to
// a full queue. A second failure ends all blocking queries, and each watch then sends a new query. A client with
// several addresses also moves to another one.
func (c *Consul) probe(ctx context.Context) {
	interval := c.options.ProbeInterval
	pause := interval
	for consul.Sleep(ctx, pause, nil) {
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
			c.client.Leave(errSilent)
			c.epoch.end(errSilent)
		}
	}
}

// ping reports whether the agent answers in time. A refused connection counts as an answer, because blocking queries
// notice it themselves.
func (c *Consul) ping(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := c.client.Ping(ctx)
	return err == nil || ctx.Err() == nil
}

// errSilent ends blocking queries after two probes without an answer from the agent.
var errSilent = fmt.Errorf("the agent does not answer: no reply to two probes of %v", probeTimeout)

// isSlow reports whether err is the error of a query that got no answer for a long time.
func isSlow(err error) bool {
	_, timeout := err.(*consul.TimeoutError)
	return timeout || err == errSilent
}
