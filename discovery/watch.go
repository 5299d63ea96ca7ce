package discovery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// A watch follows Consul's answers to one query for all services that share it.
//
// Consul answers a query that carries an index when its state has moved past it. Four things in that are not what they seem.
// An index can go back (servers restored from a snapshot, a restarted agent), and whoever keeps asking with the old one hears
// nothing until the new state has caught up. An agent that does not know the truth (just restarted, its servers away, its token
// unknown) answers 200, an empty list and index 1 when the wait is over. The index moves without a change of contents. And
// contents can change at the same index. Hence: an answer to an index-less query comes from the servers, and is believed; any other
// only if its index is at least the one asked with. A set that is sharply smaller needs an answer that is consistent besides (see Guard).
// After anything else, and after every error, the next query has no index.
type watch struct {
	key    string
	query  Query // normalized
	consul *Consul
	cancel context.CancelFunc // ends run; nil before run was started; guarded by Consul.mu

	retired   atomic.Bool                             // run is to end when the query under way has ended
	nudged    atomic.Pointer[context.CancelCauseFunc] // ends the query under way; nil: no need to
	passed    fact                                    // the agent passes the query on to its servers
	services  atomic.Pointer[[]string]                // that want the query, for messages
	forgotten bool                                    // guarded by the troubles' lock

	// The following belong to the goroutine of run.
	former   *former                   // of the answers
	index    uint64                    // to ask with; zero: ask the servers
	lastFull time.Time                 // when the servers were asked last with success
	resync   time.Duration             // after lastFull
	confirm  bool                      // the next query is to be answered by a leader that is sure of itself
	holder   holder                    // what is held back
	left     []lb.Departure            // endpoints that were in the set and that Consul still names, at the same address
	unsure   []lb.Endpoint             // and those that have vanished, of which nobody knows that for certain
	held     int                       // how many were held back when that was last logged
	doubted  time.Time                 // when an answer was last not believed
	denied   *consul.MissingRightError // the last
	fails    int                       // queries that failed since the last that did not
	failing  time.Time                 // when the first of those failed
	bad      map[string]string         // bad instances that were logged: why, by ID
	backoff  backoff
	bucket   bucket

	sending   sync.Mutex    // guards the following, and is held while they are sent
	feeds     []*feed       // that get the sets
	endpoints []lb.Endpoint // published last; written by run's goroutine only, which may read it without the lock
	available int           // of endpoints, those that are not held; the same holds
	changed   time.Time     // when endpoints last did; the same holds for this and the following
	published bool          // endpoints has been sent to the feeds
	restored  bool          // endpoints is what an earlier process has saved, and Consul has not answered yet

	mu        sync.Mutex  // guards the following
	status    WatchStatus // without what snapshot adds
	instances []Instance
}

func newWatch(c *Consul, o *wanted) *watch {
	w := &watch{key: o.key, query: o.query, consul: c, holder: holder{guard: o.guard}, former: newFormer()}
	if o.query.Near != "" { // no agent has a view of its own that is sorted
		w.passed.learn(true)
	}
	if s, found := c.restored[c.savedKey(w)]; found {
		w.endpoints, w.available, w.changed, w.restored = s.endpoints, len(s.endpoints), s.changed, true
		w.instances = savedInstances(s.endpoints)
		w.status.Endpoints, w.status.Saved = len(s.endpoints), s.changed
	}
	return w
}

// run asks until ctx ends, for the first time after pause.
func (w *watch) run(ctx context.Context, pause time.Duration) {
	defer w.cancel()
	for sleep(ctx, max(pause, w.bucket.take(time.Now()), w.rest(time.Now()))) && !w.retired.Load() {
		pause = w.step(ctx)
	}
}

// rest is how long to wait because answers are long. What has to be confirmed does not wait for that.
func (w *watch) rest(now time.Time) time.Duration {
	if w.confirm {
		return 0
	}
	return w.bucket.rest(now)
}

// step asks once, and returns how long to wait before the next time.
func (w *watch) step(ctx context.Context) time.Duration {
	if w.resync > 0 && time.Since(w.lastFull) > w.resync {
		w.index = 0
	}
	if len(w.unsure) > 0 && w.interest() > LeavesIgnored {
		w.confirm, w.index = true, 0
	}
	asked := w.index
	a, err := w.ask(ctx)
	w.bucket.pay(time.Now(), a.size)
	if err == nil {
		err = w.object(ctx, asked, &a)
	}
	return w.take(ctx, asked, &a, err)
}

// take deals with what came of a query that was asked with this index, and returns how long to wait before the next.
func (w *watch) take(ctx context.Context, asked uint64, a *answer, err error) time.Duration {
	switch {
	case ctx.Err() != nil || errors.Is(err, errTurn):
		return 0
	case err != nil:
		return w.failed(err)
	case a.index < asked:
		return w.doubt("index went back", asked, a)
	}
	in := convert(a.entries, w.query.Statuses)
	set, ok := w.holder.judge(time.Now(), w.endpoints, in, w.confirm)
	if !ok {
		// A token that lost a right looks like this too, at a good index, and only the servers say that they left something out.
		w.confirm = true
		return w.doubt("set is sharply smaller", asked, a)
	}
	told, lost := w.sortOut(in, set)
	confirmed := w.confirm
	w.confirm = false
	w.index = max(a.index, 1) // zero would make the next query return at once, and so on for ever
	if asked == 0 {
		w.lastFull = time.Now()
		w.resync = jitter(max(w.consul.options.Resync, 0))
	} else {
		w.backoff.reset()
	}
	w.logBad(in.bad)
	w.logHeld(len(in.endpoints))
	if w.publish(set, len(set)-len(w.holder.until), told) {
		w.consul.lag.observe(time.Since(a.received))
	}
	w.remember(w.known(in, set))
	w.succeeded(a, in)
	w.pursue(ctx, lost, a, confirmed)
	if w.query.Prepared != "" {
		w.index = 0
		if !w.confirm {
			return w.poll(time.Now())
		}
	}
	return 0
}

// poll is how long to wait before a prepared query is executed again.
func (w *watch) poll(now time.Time) time.Duration {
	pause := jitter(pollInterval)
	if next := w.holder.next(); !next.IsZero() {
		pause = min(pause, max(next.Sub(now), minWait))
	}
	return pause
}

// ask sends one query, as soon as there is a connection to spare for it. Its deadline is past the moment when any Consul that works has
// answered: servers hold a query for up to a sixteenth longer than its wait.
func (w *watch) ask(ctx context.Context) (answer, error) {
	slots := w.consul.slots
	if slots != nil {
		urgent := w.index == 0
		if err := slots.acquire(ctx, urgent); err != nil {
			return answer{}, err
		}
		defer slots.release(urgent)
		if w.retired.Load() { // while it waited
			return answer{}, errTurn
		}
	}
	how := ask{index: w.index, consistent: w.confirm, former: w.former}
	ctx, end := w.bound(ctx, &how)
	defer end()
	a, err := w.consul.health(ctx, &w.query, how)
	return a, w.learn(ctx, &a, err)
}

// bound gives the next query its wait and its end. There may be thousands of queries, so one context does for everything that can end one.
func (w *watch) bound(ctx context.Context, how *ask) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c, blocks := w.consul, how.index != 0
	if blocks {
		how.wait = w.wait(time.Now())
		c.epoch.join(w, cancel)
		if c.slots != nil {
			c.slots.turn.join(w, cancel)
		}
		if len(w.unsure) > 0 {
			w.nudgeable(cancel)
		}
	}
	limit := how.wait + how.wait/16 + consul.Grace
	timer := time.AfterFunc(limit, func() { cancel(&consul.TimeoutError{After: limit}) })
	w.count(func(s *WatchStatus) { s.Queries++ })
	return ctx, func() {
		timer.Stop()
		if blocks {
			c.epoch.leave(w)
			if c.slots != nil {
				c.slots.turn.leave(w)
			}
			w.nudged.Store(nil)
		}
		cancel(nil)
	}
}

// learn notes what the outcome of a query tells of the agent, and returns the error that it comes to.
func (w *watch) learn(ctx context.Context, a *answer, err error) error {
	slots := w.consul.slots
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		if slots != nil && consul.IsRefusal(err, slots.refusing()) {
			slots.refuse()
			w.consul.client.CloseIdle()
			return &consul.RefusalError{Err: err}
		}
	case w.index != 0:
		if slots != nil && w.consul.streams.learn(a.backend == consul.Streaming) {
			slots.know()
		}
		w.passed.learn(a.backend != consul.Streaming)
	}
	return err
}

// wait is how long Consul may hold the next query. When something is held back, its answer is to come when that is to be let go: what is
// held goes only on Consul's word, so that it stays if Consul has been lost meanwhile.
func (w *watch) wait(now time.Time) time.Duration {
	wait := jitter(w.consul.options.Wait)
	slots := w.consul.slots
	if slots != nil {
		if turn := slots.wait(); turn > 0 {
			wait = min(wait, turn)
		}
	}
	if slots != nil && slots.worthKnowing() && w.query.Near == "" && w.consul.streams.wonder() {
		wait = min(wait, learnWait)
	}
	if next := w.holder.next(); !next.IsZero() {
		wait = min(wait, max(next.Sub(now), minWait))
	}
	return wait
}

// lingers tells whether a blocking query that is cancelled now would go on taking a connection at the agent. The agent frees at once what
// a query of its own view takes, but what it has passed on to its servers only when the query's wait is over.
func (w *watch) lingers() bool {
	if passed, known := w.passed.is(); known {
		return passed
	}
	streams, _ := w.consul.streams.is()
	return !streams
}

// failed deals with a query that had no answer, and returns how long to wait. The endpoints stay.
func (w *watch) failed(err error) time.Duration {
	now, kind, o := time.Now(), consul.KindOf(err), &w.consul.options
	first := o.MinBackoff
	if kind >= consul.Throttled {
		first = max(first, slowBackoff)
	}
	pause := w.backoff.next(now, first, o.MaxBackoff)
	w.index = 0
	if w.fails++; w.fails == 1 {
		w.failing = now
	}
	w.count(func(s *WatchStatus) {
		s.Errors++
		if kind == consul.Throttled {
			s.Throttled++
		}
		s.Error, s.ErrorSince, s.Index = err.Error(), w.failing, 0
	})
	w.log().Debug("query failed", "error", err, "in_a_row", w.fails, "retry_in", pause)
	// A single broken connection is repaired before anybody could read of it. What took long or cannot heal is news at once.
	// That there are few connections was said where they are handed out, and most queries get one at the next attempt.
	var refusal *consul.RefusalError
	if errors.As(err, &refusal) && w.fails <= 3 {
		return pause
	}
	if w.fails > 1 || kind >= consul.Denied || isSlow(err) {
		w.consul.troubles.enter(w, kind, err, w.failing)
	}
	return pause
}

// doubt deals with an answer that is not believed: the servers are asked at once, but not again and again.
func (w *watch) doubt(why string, asked uint64, a *answer) time.Duration {
	now, last := time.Now(), w.doubted
	w.doubted = now
	w.index = 0
	w.count(func(s *WatchStatus) { s.Doubted++ })
	w.log().Debug("answer not believed", "why", why, "index", a.index, "asked_with", asked, "backend", a.backend, "instances", len(a.entries))
	if now.Sub(last) > w.consul.options.MaxBackoff {
		return 0
	}
	return w.backoff.next(now, w.consul.options.MinBackoff, w.consul.options.MaxBackoff)
}

// succeeded notes a good answer.
func (w *watch) succeeded(a *answer, in instances) {
	w.fails = 0
	w.count(func(s *WatchStatus) {
		s.Error, s.ErrorSince = "", time.Time{}
		s.LastSuccess = time.Now()
		s.Index, s.Backend = w.index, a.backend
		s.Endpoints, s.Bad, s.Duplicates = len(w.endpoints), len(in.bad), in.duplicates
		s.Held, s.HeldUntil = len(w.holder.until), w.holder.next()
	})
	w.consul.troubles.leave(w)
}

// publish sends endpoints, of which so many are not held, and who is out and why, to all feeds, unless that is what was sent last. It tells
// whether endpoints are new.
func (w *watch) publish(endpoints []lb.Endpoint, available int, left []lb.Departure) bool {
	same, told := slices.Equal(w.endpoints, endpoints), slices.Equal(w.left, left)
	w.left = slices.DeleteFunc(slices.Clone(left), moved)
	if w.published && same && available == w.available && told {
		return false
	}
	now, first := time.Now(), !w.published
	w.log().Debug("endpoints changed", "before", len(w.endpoints), "now", len(endpoints))
	w.sending.Lock()
	w.endpoints, w.available, w.published, w.restored, w.changed = endpoints, available, true, false, now
	for _, f := range w.feeds {
		f.deliver(w, endpoints, available, false, left)
	}
	w.sending.Unlock()
	if same && !first {
		return false
	}
	w.bucket.news()
	if w.consul.store != nil {
		w.consul.store.changed()
	}
	w.count(func(s *WatchStatus) {
		s.Updates++
		s.LastChange, s.Saved = now, time.Time{}
	})
	return true
}

// maxBadLogged is how many instances that are left out one answer may fill the log with.
const maxBadLogged = 10

// logBad logs the instances in bad that are new there or bad for another reason than before.
func (w *watch) logBad(bad map[string]string) {
	var anew []string
	for id, why := range bad {
		if w.bad[id] != why {
			anew = append(anew, id)
		}
	}
	slices.Sort(anew)
	for _, id := range anew[:min(len(anew), maxBadLogged)] {
		w.log().Warn("instance left out", "instance", id, "reason", bad[id])
	}
	if more := len(anew) - maxBadLogged; more > 0 {
		w.log().Warn("more instances left out; lictor explain says which and why", "instances", more)
	}
	w.bad = bad
}

// logHeld logs that endpoints are held back, or no longer, while Consul knows so many.
func (w *watch) logHeld(known int) {
	before, now := w.held, len(w.holder.until)
	w.held = now
	switch {
	case before == 0 && now > 0:
		w.log().Warn("most instances have vanished at once, they stay in use for now", "vanished", now, "left", known, "drop_hold", w.holder.guard.Hold)
	case before > 0 && now == 0:
		w.log().Info("no vanished instances are kept in use any more", "instances", known)
	}
}

// name is how the watch's services appear in a log line.
func (w *watch) name() string { return shortNames(*w.services.Load()) }

// log is where the watch's messages go.
func (w *watch) log() hclog.Logger { return w.consul.options.Logger.With("service", w.name()) }

// count changes the status.
func (w *watch) count(change func(*WatchStatus)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.status)
}
