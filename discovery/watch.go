package discovery

import (
	"context"
	"errors"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// A watch follows Consul's answers to one query, for all services that share the query. A watch has five parts: the
// poller sends the query, judge decides what an answer means, and the publisher passes the set on. The reporter
// publishes the state of the watch, and the vigil probes held endpoints.
type watch struct {
	key    string
	query  Query // normalized
	guard  Guard // with defaults
	consul *Consul
	cancel context.CancelFunc // ends run; nil before run was started; guarded by Consul.mu

	poller    poller
	publisher publisher
	reporter  reporter
	vigil     vigil

	// Only run uses the following fields.
	state     belief
	next      question
	inherited *savedSet // set of an earlier process, perhaps of another cluster; nil: none, or Consul has answered
}

// newWatch returns a watch for o. If an earlier process has saved a set for the query, the watch starts with that set.
func newWatch(c *Consul, o *wanted) *watch {
	w := &watch{key: o.key, query: o.query, guard: o.guard, consul: c}
	w.publisher.watch = w
	w.reporter = reporter{
		query: &w.query, base: c.options.Logger, onEvent: c.options.OnEvent, troubles: c.troubles, holds: c.holds,
	}
	w.poller = poller{
		query: &w.query, request: w.query.request(), consul: c, report: &w.reporter,
		interest: w.publisher.mostInterest, parser: newParser(w.query.fields()), lostSome: w.vigil.hasNews,
	}
	w.vigil.prober, w.vigil.failed = c.options.Prober, w.poller.nudge
	w.vigil.services = func() []string { return *w.reporter.sharers.Load() }
	if !o.query.mayStream() {
		w.poller.passed.learn(true)
	}
	if s, found := c.restored[c.savedKey(w)]; found && s.fits(&w.query) {
		s.held = w.guard.resume(s.held)
		if earlier := c.origins.earlier; earlier != nil {
			w.inherited = &s
			if !earlier.origin.at(c.client) {
				return w
			}
		}
		w.state.set, w.state.held, w.state.joined = s.endpoints, s.held, s.joined
		w.publisher.restore(s)
		w.reporter.restore(s)
	}
	return w
}

// run sends the query repeatedly until ctx ends. run sends the first query after pause.
func (w *watch) run(ctx context.Context, pause time.Duration) {
	defer w.cancel()
	w.watchOver(ctx) // an earlier process may have held endpoints
	for w.consul.pause(ctx, max(pause, w.poller.pace(time.Now(), w.next)), w.poller.site) && !w.poller.retired.Load() {
		pause = w.step(ctx)
	}
}

// watchOver makes the vigil probe the held endpoints, until ctx ends.
func (w *watch) watchOver(ctx context.Context) {
	if w.vigil.watchOver(&w.state) {
		w.consul.running.Go(func() { w.vigil.run(ctx) })
	}
}

// step sends one query, and returns how long to wait before the next query.
func (w *watch) step(ctx context.Context) time.Duration {
	w.next = w.state.nextQuestion(w.poller.due(time.Now(), w.next), w.publisher.mostInterest())
	if w.vigil.hasNews() {
		w.next = question{leader: true}
	}
	asked := w.next
	a, err := w.poller.ask(ctx, asked, &w.state)
	if err == nil {
		err = w.poller.verify(ctx, asked, &a, len(w.state.held) > 0)
	}
	return w.take(ctx, asked, &a, err)
}

// take handles the outcome of a query, and returns how long to wait before the next query.
func (w *watch) take(ctx context.Context, asked question, a *answer, err error) time.Duration {
	now := time.Now()
	switch {
	case ctx.Err() != nil, errors.Is(err, errTurn):
		return 0
	case errors.Is(err, consul.ErrMoved): // the next question has no index
		return w.consul.spread()
	}
	if pause := w.checkOrigin(ctx, a, err); pause > 0 {
		return pause
	}
	if err != nil {
		return w.failed(now, err)
	}
	e := evidence{
		now: now, asked: asked, index: a.index, filtered: a.filtered, denies: a.denies, kind: w.query.kind(),
		in: a.instances(&w.query), interest: w.publisher.mostInterest(),
		probed: w.vigil.canProbe(), unreachable: w.vigil.unreachable(),
	}
	e.records = w.poller.records(ctx, w.state.puzzles(w.guard, &e))
	v := w.state.judge(w.guard, e)
	w.next = v.next
	if v.doubt != "" {
		if v.doubt == wentBack {
			w.consul.origins.forget()
			w.consul.client.ForgetCluster()
		}
		w.reporter.disbelieved(v.doubt, asked, a)
		return w.poller.disbelieved(now)
	}
	w.believe(ctx, &e, &v, a)
	if v.denied {
		return w.failed(now, w.poller.diagnose(ctx, true))
	}
	w.poller.believed(now, asked)
	w.reporter.believed(now, a, v.next)
	return w.rest()
}

// failed handles a query without a usable answer, and returns how long to wait before the next query.
func (w *watch) failed(now time.Time, err error) time.Duration {
	w.next.index = 0
	kind := consul.KindOf(err)
	pause := w.poller.failed(now, kind)
	w.reporter.failed(now, kind, err, pause)
	return pause
}

// believe adopts the belief of the verdict v, and informs all parts of the watch.
func (w *watch) believe(ctx context.Context, e *evidence, v *verdict, a *answer) {
	before := len(w.state.set)
	w.state, w.inherited = v.belief, nil
	b := &w.state
	w.reporter.logBad(e.in.bad)
	hidden := w.consul.hides(a)
	zone, noZone := w.query.Prefer.own(&a.here)
	w.reporter.count(func(s *WatchStatus) { s.Hidden, s.Zone, s.NoZone = hidden, zone, noZone })
	if hidden {
		w.consul.warnOfNoToken(w.reporter.sharerNames())
	}
	w.reporter.logHeld(b, len(e.in.endpoints), before)
	w.watchOver(ctx)
	if w.publisher.publish(b, v.told, v.toldAnew) {
		w.poller.bucket.news()
		if w.consul.store != nil {
			w.consul.store.markDirty()
		}
		w.reporter.published(e.now, before, len(b.set))
		w.consul.lag.observe(time.Since(a.received))
	}
	w.reporter.remember(b.describe(e.in))
	w.reporter.counted(e.in, b)
	if v.hidden > 0 {
		w.reporter.logger().Debug("endpoints have vanished, or the token may not see them any more",
			"endpoints", v.hidden)
	}
	if len(v.gone) > 0 {
		w.publisher.departed(w.explain(ctx, e, v))
	}
}

// explain returns why the endpoints in v.gone have vanished. If a service wants exact reasons, explain asks the leader.
func (w *watch) explain(ctx context.Context, e *evidence, v *verdict) []lb.Departure {
	var known registry
	if e.interest == LeavesExplained && w.query.needsRegistry() {
		known = w.poller.registry(ctx)
	}
	w.reporter.logger().Debug("endpoints have left", "endpoints", len(v.gone))
	return w.query.explain(v.gone, known)
}

// rest returns how long to wait after a believed answer. A prepared query is repeated after a pause, because Consul has
// no blocking queries for prepared queries.
func (w *watch) rest() time.Duration {
	if w.query.Prepared == "" {
		return 0
	}
	w.next.index = 0
	if w.next.leader {
		return 0
	}
	return until(consul.Jitter(pollInterval), time.Now(), w.state.letGo())
}
