package discovery

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A poller sends one query to Consul again and again. The poller decides when to send the query, and limits how long
// the query takes. judge decides what to ask for, and what the answer means. Unless their comments say otherwise, only
// the goroutine of watch.run calls the methods of a poller.
type poller struct {
	query    *Query // normalized
	request  string // see Query.request
	consul   *Consul
	report   *reporter
	interest func() Leaves
	lostSome func() bool // reports whether probes no longer reach a held endpoint that they reached before

	retired atomic.Bool                             // no further query is wanted
	nudged  atomic.Pointer[context.CancelCauseFunc] // ends the running query; nil: nudge must not end it
	passed  fact                                    // whether the agent passes the query on to its servers

	site    uint64                    // see consul.Answer.Site; of the last answer
	parser  *parser                   // parser of the answers
	full    time.Time                 // when the servers last answered
	resync  time.Duration             // time after full when the servers are asked again; zero: never
	doubted time.Time                 // when an answer was last not believed
	cut     time.Duration             // wait of the last query, if the agent cut it off when it was due; zero: no
	denied  *consul.MissingRightError // since the last believed answer; nil: none
	backoff consul.Backoff
	bucket  bucket
}

// pace returns how long to wait before the next query, so that Lictor does not send queries too often.
func (p *poller) pace(now time.Time, next question) time.Duration {
	pause := p.bucket.take(now)
	if !next.leader { // a confirmation does not wait because answers are long
		pause = max(pause, p.bucket.rest(now))
	}
	return pause
}

// due returns q, and removes its index if it is time to ask the servers again, or if the client is at another agent
// than the one that has sent the index.
func (p *poller) due(now time.Time, q question) question {
	switch site := p.consul.client.Site(); {
	case site != p.site:
		p.site, q.index = site, 0
		if p.query.Near == "" && !p.query.chain {
			p.passed.forget()
		}
	case p.resync > 0 && now.Sub(p.full) > p.resync:
		q.index = 0
	}
	return q
}

// ask returns the answer to a question. If the context has ended the query, the error is the context's cause. If b has
// vanished or held endpoints, nudge can also end the query, with errTurn. A blocking query may be that of another
// watch.
func (p *poller) ask(ctx context.Context, q question, b *belief) (answer, error) {
	send := func() (answer, error) { return p.send(ctx, q, b) }
	a, err := answer{}, error(nil)
	if q.index == 0 {
		a, err = send()
	} else {
		a, err = p.share(ctx, q, b, send)
	}
	if err == nil {
		p.site = a.site
	}
	return a, err
}

// send sends one query as soon as a connection is available, and returns the answer as ask does.
func (p *poller) send(ctx context.Context, q question, b *belief) (_ answer, err error) {
	if slots := p.consul.slots; slots != nil {
		urgent := q.index == 0
		if err := slots.acquire(ctx, urgent); err != nil {
			return answer{}, err
		}
		defer func() {
			if _, refused := err.(*consul.RefusalError); refused {
				slots.refuse(urgent)
			} else {
				slots.release(urgent)
			}
		}()
		if p.retired.Load() { // retired during the wait for the slot
			return answer{}, errTurn
		}
	}
	how := ask{index: q.index, site: p.site, consistent: q.leader, reuse: p.parser}
	if q.index != 0 {
		how.wait = p.waitFor(time.Now(), b.letGo()).Truncate(time.Millisecond) // rounded as the request rounds it
	}
	ctx, end := p.bound(ctx, &how, b)
	defer end()
	sent := time.Now()
	a, err := p.consul.health(ctx, p.query, how)
	p.noteCut(how, time.Since(sent), err)
	p.bucket.pay(time.Now(), a.size)
	if err != nil && ctx.Err() != nil {
		return a, context.Cause(ctx)
	}
	return a, p.learn(q, &a, err)
}

// bound returns a context that ends when the query should end: at its deadline, or when other queries need its
// connection. The returned function frees the resources of the context. One context serves all these purposes, because
// thousands of queries may run.
//
// The deadline is later than any answer of a working Consul: servers hold a query for up to a sixteenth longer than its
// wait.
func (p *poller) bound(ctx context.Context, how *ask, b *belief) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c, blocks, unheed := p.consul, how.index != 0, func() {}
	if blocks {
		c.epoch.join(p, cancel)
		if c.slots != nil {
			c.slots.turn.join(p, cancel)
		}
		unheed = p.heed(cancel, b)
	}
	limit := how.wait + how.wait/16 + consul.Grace
	timer := time.AfterFunc(limit, func() { cancel(&consul.TimeoutError{After: limit}) })
	p.report.queried()
	return ctx, func() {
		timer.Stop()
		if blocks {
			c.epoch.leave(p)
			if c.slots != nil {
				c.slots.turn.leave(p)
			}
		}
		unheed()
		cancel(nil)
	}
}

// outdated reports whether another question is better now than a question that waits for a change.
func (p *poller) outdated(b *belief) bool {
	return len(b.vanished) > 0 && p.interest() > LeavesIgnored || p.lostSome()
}

// nudge ends the running query if it holds up a better one: endpoints are held, or have vanished while no service was
// interested. nudge may be called from any goroutine.
func (p *poller) nudge() {
	if end := p.nudged.Load(); end != nil {
		(*end)(errTurn)
	}
}

// learn records what the outcome of a query says about the agent, and returns the error for the caller.
func (p *poller) learn(q question, a *answer, err error) error {
	c := p.consul
	switch {
	case err != nil:
		if c.slots != nil && consul.IsRefusal(err, c.slots.refusing()) {
			c.client.CloseIdle()
			return &consul.RefusalError{Err: err}
		}
	case q.index != 0:
		if c.slots != nil && p.query.mayStream() && c.streams.learn(a.backend == api.QueryBackendStreaming) {
			c.slots.know()
		}
		p.passed.learn(a.backend != api.QueryBackendStreaming)
	}
	return err
}

// waitFor returns how long Consul may hold the next query. If an endpoint is held, the answer must come when the hold
// ends, at letGo. Only an answer drops a held endpoint: the endpoint stays if Consul has been lost in the meantime. A
// zero letGo means that no endpoint is held.
func (p *poller) waitFor(now, letGo time.Time) time.Duration {
	wait := consul.Jitter(p.consul.patience.bound(p.consul.options.Wait))
	slots := p.consul.slots
	if slots != nil {
		if turn := slots.turnLength(); turn > 0 {
			wait = min(wait, turn)
		}
	}
	if slots != nil && slots.worthKnowing() && p.query.mayStream() && p.consul.streams.claim() {
		wait = min(wait, learnWait)
	}
	return until(wait, now, letGo)
}

// until returns d, or the time until due if that is shorter, but at least minWait. A zero due means that nothing is
// due.
func until(d time.Duration, now, due time.Time) time.Duration {
	if due.IsZero() {
		return d
	}
	return min(d, max(due.Sub(now), minWait))
}

// lingers reports whether a blocking query would keep its connection at the agent after it was cancelled. The agent
// frees a query on its own view at once. The agent frees a query that it has passed on to its servers only when the
// wait is over. lingers may be called from any goroutine.
func (p *poller) lingers() bool {
	if passed, known := p.passed.is(); known {
		return passed
	}
	streams, _ := p.consul.streams.is()
	return !streams
}

// verify makes further requests if an answer is ambiguous. The error says why the answer must not be judged, although
// Consul reports success. held says that endpoints are held.
func (p *poller) verify(ctx context.Context, asked question, a *answer, held bool) error {
	empty := len(a.entries) == 0
	switch {
	case empty && a.filtered && asked.index == 0:
		return p.diagnose(ctx, false)
	case p.query.Peer != "" && (empty || asked.leader || held):
		// When a peering ends, its instances vanish one by one, and only then does Consul say that the peering has
		// ended. Held endpoints are therefore dropped only while the peering exists.
		return p.consul.client.Peering(ctx, p.query.Peer)
	}
	return nil
}

// diagnose returns the error for an answer that is empty because the token may not see the instances. With some, the
// answer lacks only some instances. diagnose asks Consul for the missing right once, until an answer is believed again.
func (p *poller) diagnose(ctx context.Context, some bool) error {
	if p.denied == nil {
		p.denied = &consul.MissingRightError{Missing: p.consul.missingRight(ctx, p.query)}
	}
	return &consul.MissingRightError{Missing: p.denied.Missing, Some: some}
}

// registry asks the leader which instances of the query's service are registered, with any tags and any health.
// registry returns nil if the leader cannot be asked.
func (p *poller) registry(ctx context.Context) registry {
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	if slots := p.consul.slots; slots != nil {
		if slots.acquire(ctx, true) != nil {
			return nil
		}
		defer slots.release(true)
	}
	p.report.queried()
	q := *p.query
	q.Tags, q.Filter = nil, ""
	a, err := p.consul.health(ctx, &q, ask{consistent: true})
	if err != nil || a.filtered {
		p.report.logger().Debug("consul did not say why endpoints have vanished",
			"error", err, "token_may_not_see_all", a.filtered)
		return nil
	}
	all := make(registry, len(a.entries))
	for _, one := range a.instances(&q).all {
		all[[2]string{one.ID, one.Address()}] = true
	}
	return all
}

// records asks the leader for the catalog records of nodes. Nodes that could not be asked about are missing in the
// result. The result is empty for a cluster peering, because Consul has no records of its nodes.
func (p *poller) records(ctx context.Context, nodes []string) map[string]record {
	if len(nodes) == 0 || p.query.Peer != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	if slots := p.consul.slots; slots != nil {
		if slots.acquire(ctx, true) != nil {
			return nil
		}
		defer slots.release(true)
	}
	all := make(map[string]record, len(nodes))
	for _, node := range nodes {
		p.report.queried()
		r, err := p.consul.record(ctx, node, p.query)
		if err != nil {
			p.report.logger().Debug("cannot read the record of a node that lost endpoints", "node", node, "error", err)
			continue
		}
		all[node] = r
	}
	return all
}

// failed returns how long to wait after a failed query.
func (p *poller) failed(now time.Time, kind consul.Kind) time.Duration {
	o := &p.consul.options
	first := o.MinBackoff
	if kind >= consul.Throttled {
		first = max(first, slowBackoff)
	}
	return p.backoff.Pause(now, first, o.MaxBackoff)
}

// disbelieved returns how long to wait after an answer that was not believed. The first time, the next query follows at
// once; later times use the backoff.
func (p *poller) disbelieved(now time.Time) time.Duration {
	o, last := &p.consul.options, p.doubted
	p.doubted = now
	if now.Sub(last) > o.MaxBackoff {
		return 0
	}
	return p.backoff.Pause(now, o.MinBackoff, o.MaxBackoff)
}

// believed records an answer that was believed.
func (p *poller) believed(now time.Time, asked question) {
	p.denied = nil
	if asked.index != 0 {
		p.backoff.Reset()
		return
	}
	p.full = now
	p.resync = consul.Jitter(max(p.consul.options.Resync, 0))
}
