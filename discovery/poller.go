package discovery

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A poller asks Consul one query, again and again. It decides when to ask, and bounds how long that takes. What to
// ask for, and what the answer means, is for judge. Unless said otherwise, its methods belong to the goroutine of
// watch.run.
type poller struct {
	query    *Query // normalized
	consul   *Consul
	report   *reporter
	interest func() Leaves
	lostSome func() bool // reports whether probes have stopped to reach a held endpoint since it was last asked about

	retired atomic.Bool                             // no further query is wanted
	nudged  atomic.Pointer[context.CancelCauseFunc] // ends the query under way; nil: nudge is not to end it
	passed  fact                                    // the agent passes the query on to its servers

	parser  *parser                   // of the answers
	full    time.Time                 // when the servers last answered
	resync  time.Duration             // after full, the servers are asked again; zero: never
	doubted time.Time                 // when an answer was last not believed
	cut     time.Duration             // wait of the last query, if it was cut off when its answer was due; zero: no
	denied  *consul.MissingRightError // since the last answer that was believed; nil: none
	backoff backoff
	bucket  bucket
}

// pace returns how long to wait before the next query, so that Lictor does not ask too often.
func (p *poller) pace(now time.Time, next question) time.Duration {
	pause := p.bucket.take(now)
	if !next.leader { // what has to be confirmed does not wait because answers are long
		pause = max(pause, p.bucket.rest(now))
	}
	return pause
}

// due returns q, without its index if the servers are to be asked again.
func (p *poller) due(now time.Time, q question) question {
	if p.resync > 0 && now.Sub(p.full) > p.resync {
		q.index = 0
	}
	return q
}

// ask sends one query as soon as there is a connection for it, and returns the answer. The context's cause is the
// error if it ended the query. If b has vanished or held endpoints, nudge can end the query too, with errTurn.
func (p *poller) ask(ctx context.Context, q question, b *belief) (answer, error) {
	if slots := p.consul.slots; slots != nil {
		urgent := q.index == 0
		if err := slots.acquire(ctx, urgent); err != nil {
			return answer{}, err
		}
		defer slots.release(urgent)
		if p.retired.Load() { // while it waited
			return answer{}, errTurn
		}
	}
	how := ask{index: q.index, consistent: q.leader, reuse: p.parser}
	if q.index != 0 {
		how.wait = p.waitFor(time.Now(), b.letGo()).Truncate(time.Millisecond) // as it is sent
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

// bound returns a context that ends when the query should: at its deadline, or when others need it to. The function
// frees what that takes. There may be thousands of queries, so one context does for everything that can end one.
//
// The deadline is later than any answer of a Consul that works: servers hold a query for up to a sixteenth longer
// than its wait.
func (p *poller) bound(ctx context.Context, how *ask, b *belief) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c, blocks := p.consul, how.index != 0
	if blocks {
		c.epoch.join(p, cancel)
		if c.slots != nil {
			c.slots.turn.join(p, cancel)
		}
		if len(b.vanished)+len(b.held) > 0 {
			p.nudged.Store(&cancel)
			if p.outdated(b) { // which may have happened since the question was chosen
				cancel(errTurn)
			}
		}
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
			p.nudged.Store(nil)
		}
		cancel(nil)
	}
}

// outdated reports whether another question is better by now than one that waits for a change.
func (p *poller) outdated(b *belief) bool {
	return len(b.vanished) > 0 && p.interest() > LeavesIgnored || p.lostSome()
}

// nudge ends the query under way if endpoints have vanished and no service wanted to know of them when it was sent,
// or if endpoints were held. It may be called by any goroutine.
func (p *poller) nudge() {
	if end := p.nudged.Load(); end != nil {
		(*end)(errTurn)
	}
}

// learn notes what the outcome of a query says of the agent, and returns the error that it comes to.
func (p *poller) learn(q question, a *answer, err error) error {
	c := p.consul
	switch {
	case err != nil:
		if c.slots != nil && consul.IsRefusal(err, c.slots.refusing()) {
			c.slots.refuse()
			c.client.CloseIdle()
			return &consul.RefusalError{Err: err}
		}
	case q.index != 0:
		if c.slots != nil && c.streams.learn(a.backend == api.QueryBackendStreaming) {
			c.slots.know()
		}
		p.passed.learn(a.backend != api.QueryBackendStreaming)
	}
	return err
}

// wait returns how long Consul may hold the next query. The answer has to come when a held endpoint is to be let go,
// as such endpoints go only by an answer: they stay if Consul has been lost meanwhile. A zero letGo means that none
// is held.
func (p *poller) waitFor(now, letGo time.Time) time.Duration {
	wait := jitter(p.consul.patience.bound(p.consul.options.Wait))
	slots := p.consul.slots
	if slots != nil {
		if turn := slots.turnLength(); turn > 0 {
			wait = min(wait, turn)
		}
	}
	if slots != nil && slots.worthKnowing() && p.query.Near == "" && p.consul.streams.claim() {
		wait = min(wait, learnWait)
	}
	return until(wait, now, letGo)
}

// until returns d, or less if something is due before: at least minWait. A zero time means that nothing is due.
func until(d time.Duration, now, due time.Time) time.Duration {
	if due.IsZero() {
		return d
	}
	return min(d, max(due.Sub(now), minWait))
}

// lingers reports whether a blocking query that is cancelled now would go on taking a connection at the agent. The
// agent frees a query of its own view at once. What it has passed on to its servers it frees only when the wait is
// over. Any goroutine may call it.
func (p *poller) lingers() bool {
	if passed, known := p.passed.is(); known {
		return passed
	}
	streams, _ := p.consul.streams.is()
	return !streams
}

// verify asks for what an answer does not say, and returns why it may not be judged although Consul calls it a
// success. held says that endpoints are held.
func (p *poller) verify(ctx context.Context, asked question, a *answer, held bool) error {
	empty := len(a.entries) == 0
	switch {
	case empty && a.filtered && asked.index == 0:
		return p.diagnose(ctx, false)
	case p.query.Peer != "" && (empty || asked.leader || held):
		// When a peering ends, its instances vanish one by one, and only then Consul says that it has ended. So held
		// endpoints are let go only while the peering exists.
		return p.consul.client.Peering(ctx, p.query.Peer)
	}
	return nil
}

// diagnose returns the error for an answer that is empty because the token may not see the instances or, with some,
// that lacks some of them. Which right is missing is asked once until an answer is believed again.
func (p *poller) diagnose(ctx context.Context, some bool) error {
	if p.denied == nil {
		p.denied = &consul.MissingRightError{
			Missing: p.consul.client.MissingRight(ctx, p.query.Service, p.query.Datacenter),
		}
	}
	return &consul.MissingRightError{Missing: p.denied.Missing, Some: some}
}

// registry asks the leader what is registered of the query's service, whatever its tags and its health. It returns
// nil if that cannot be learnt.
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
		p.report.logger().Debug("why endpoints have vanished is not known",
			"error", err, "token_may_not_see_all", a.filtered)
		return nil
	}
	all := make(registry, len(a.entries))
	for _, one := range convert(a.entries, q.Statuses).all {
		all[[2]string{one.ID, one.Address()}] = true
	}
	return all
}

// records asks the leader what it has of nodes. Nodes that it could not be asked for are missing in the result, as are
// those of a cluster peering, of which Consul says nothing.
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
		r, err := p.consul.record(ctx, node, p.query.Datacenter)
		if err != nil {
			p.report.logger().Debug("the catalog does not say why endpoints have vanished", "node", node, "error", err)
			continue
		}
		all[node] = r
	}
	return all
}

// failed returns how long to wait after a query that failed.
func (p *poller) failed(now time.Time, kind consul.Kind) time.Duration {
	o := &p.consul.options
	first := o.MinBackoff
	if kind >= consul.Throttled {
		first = max(first, slowBackoff)
	}
	return p.backoff.pause(now, first, o.MaxBackoff)
}

// disbelieved returns how long to wait after an answer that was not believed. The servers are asked at once the first
// time, but not again and again.
func (p *poller) disbelieved(now time.Time) time.Duration {
	o, last := &p.consul.options, p.doubted
	p.doubted = now
	if now.Sub(last) > o.MaxBackoff {
		return 0
	}
	return p.backoff.pause(now, o.MinBackoff, o.MaxBackoff)
}

// believed notes an answer that was believed.
func (p *poller) believed(now time.Time, asked question) {
	p.denied = nil
	if asked.index != 0 {
		p.backoff.reset()
		return
	}
	p.full = now
	p.resync = jitter(max(p.consul.options.Resync, 0))
}
