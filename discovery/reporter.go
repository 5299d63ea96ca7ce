package discovery

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A reporter publishes the state of a watch: in its status, in the log and as events. Only watch.run may call the
// methods of a reporter, except where their comments allow any goroutine.
type reporter struct {
	query    *Query       // normalized
	base     hclog.Logger // without the names of the services
	onEvent  func(Event)  // may be nil
	troubles *troubles
	holds    *chorus[heldReport]
	sharers  atomic.Pointer[[]string] // services that share the query; never changed once stored

	forgotten bool // guarded by the lock of troubles

	// Only watch.run uses the following fields.
	fails   int               // failed queries since the last believed answer
	failing time.Time         // when the first of these queries failed
	bad     map[string]string // bad instances that were logged, with the reason, by ID
	held    map[string]hold   // endpoints that were held after the last believed answer, by ID
	quiet   bool              // the end of the holds is not worth a log line

	mu        sync.Mutex  // guards the following fields
	status    WatchStatus // without the fields that snapshot adds
	instances []Instance  // sorted by ID
}

// restore shows a set of an earlier process in the status. An empty set removes the one that is shown.
func (r *reporter) restore(s savedSet) {
	r.held = s.held
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances = savedInstances(s)
	r.status.Endpoints, r.status.Held, r.status.Saved = len(s.endpoints), len(s.held), s.changed
}

// sharerNames returns the names of the services, for a log line. Any goroutine may call it.
func (r *reporter) sharerNames() string { return shortNames(*r.sharers.Load()) }

// logger returns a logger with the names of the services. Any goroutine may call it.
func (r *reporter) logger() hclog.Logger { return r.base.With("service", r.sharerNames()) }

// count changes the status. Any goroutine may call it.
func (r *reporter) count(change func(*WatchStatus)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}

// snapshot returns the status. Any goroutine may call it.
func (r *reporter) snapshot() WatchStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Services = slices.Clone(*r.sharers.Load())
	s.Query, s.Chain = *r.query, r.query.chain
	s.Query.Tags, s.Query.Statuses = slices.Clone(r.query.Tags), slices.Clone(r.query.Statuses)
	return s
}

// all returns the state of all instances. Any goroutine may call it.
func (r *reporter) all() []Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.instances)
}

// queried counts a query that is about to be sent.
func (r *reporter) queried() { r.count(func(s *WatchStatus) { s.Queries++ }) }

// failed reports a query without a usable answer. The query is repeated after pause.
func (r *reporter) failed(now time.Time, kind consul.Kind, err error, pause time.Duration) {
	if r.fails++; r.fails == 1 {
		r.failing = now
	}
	r.count(func(s *WatchStatus) {
		s.Errors++
		if kind == consul.Throttled {
			s.Throttled++
		}
		s.Error, s.ErrorSince, s.Index = err.Error(), r.failing, 0
	})
	r.logger().Debug("query failed", "error", err, "in_a_row", r.fails, "retry_in", pause)
	// slots logs a lack of connections, and most refused queries get a connection at the next attempt.
	var refusal *consul.RefusalError
	if errors.As(err, &refusal) && r.fails <= 3 {
		return
	}
	// A single broken connection is repaired before an operator could read about it. A slow failure, or one that
	// repeats cannot heal, is logged at once.
	if r.fails > 1 || kind >= consul.Denied || isSlow(err) {
		r.troubles.enter(r, kind, err, r.failing)
	}
}

// disbelieved reports an answer that was not believed, and why.
func (r *reporter) disbelieved(why string, asked question, a *answer) {
	r.count(func(s *WatchStatus) { s.Doubted++ })
	r.logger().Debug("answer not believed", "why", why, "index", a.index, "asked_with", asked.index,
		"backend", a.backend, "instances", len(a.entries))
}

// published reports that a new set was published.
func (r *reporter) published(now time.Time, before, after int) {
	r.logger().Debug("endpoints changed", "before", before, "now", after)
	r.count(func(s *WatchStatus) {
		s.Updates++
		s.LastChange = now
	})
}

// counted updates the status after a believed answer.
func (r *reporter) counted(in instances, b *belief) {
	r.count(func(s *WatchStatus) {
		s.Saved = time.Time{}
		s.Endpoints, s.Bad, s.Duplicates = len(b.set), len(in.bad), in.duplicates
		s.Held, s.HeldUntil = len(b.held), b.letGo()
	})
}

// believed reports an answer that was believed without doubt about the token's rights.
func (r *reporter) believed(now time.Time, a *answer, next question) {
	r.fails = 0
	r.count(func(s *WatchStatus) {
		s.Error, s.ErrorSince = "", time.Time{}
		s.LastSuccess, s.Index, s.Backend = now, next.index, a.backend
	})
	r.troubles.leave(r)
}

// cannotFollow reports an answer with a discovery chain that Lictor cannot follow. next is the next question.
func (r *reporter) cannotFollow(now time.Time, a *answer, next question, err *ChainError) {
	if r.fails++; r.fails == 1 {
		r.failing = now
	}
	r.count(func(s *WatchStatus) {
		s.Error, s.ErrorSince = err.Error(), r.failing
		s.LastSuccess, s.Index, s.Backend = now, next.index, a.backend
	})
	r.troubles.enter(r, consul.Refused, err, r.failing)
}

// maxBadLogged is how many left-out instances are logged for one answer.
const maxBadLogged = 10

// logBad logs the instances in bad that were not bad before, or were bad for another reason.
func (r *reporter) logBad(bad map[string]string) {
	var fresh []string
	for id, why := range bad {
		if r.bad[id] != why {
			fresh = append(fresh, id)
		}
	}
	slices.Sort(fresh)
	for _, id := range fresh[:min(len(fresh), maxBadLogged)] {
		r.logger().Warn("instance left out", "instance", id, "reason", bad[id])
	}
	if more := len(fresh) - maxBadLogged; more > 0 {
		r.logger().Warn("more instances left out; run lictor explain to see which and why", "instances", more)
	}
	r.bad = bad
}

// logHeld logs when endpoints begin to be held, and when no endpoint is held any more. known is the number of instances
// that Consul names now, and before is the old size of the set. If an operator deregisters the only instance of a
// service, logHeld logs one line without alarm.
func (r *reporter) logHeld(b *belief, known, before int) {
	began := len(r.held) == 0 && len(b.held) > 0
	ended := len(r.held) > 0 && len(b.held) == 0
	report := heldReport{services: *r.sharers.Load(), vanished: len(b.held), known: known, reasons: reasonsOf(b.held)}
	switch only := soleHold(b); {
	case began && before == 1 && known == 0 && only.why == HoldDeregistered:
		report.news, report.until = onlyHeld, only.until
		r.holds.add(report)
		r.quiet = true
	case began:
		report.news, report.until = heldBegan, b.letGoLast()
		r.holds.add(report)
	case ended && !r.quiet:
		report.news = heldEnded
		r.holds.add(report)
	}
	if ended {
		r.quiet = false
	}
	r.count(func(s *WatchStatus) {
		for id := range b.held {
			if _, before := r.held[id]; !before {
				s.Holds++
			}
		}
	})
	r.held = b.held
}

// clock returns a time of day for a log line.
func clock(t time.Time) string { return t.Format(time.TimeOnly) }

// soleHold returns the hold of a belief that has exactly one.
func soleHold(b *belief) (only hold) {
	for _, h := range b.held {
		only = h
	}
	return only
}

// remember stores the state of all instances, and sends events for what has changed since the last call.
func (r *reporter) remember(all []Instance) {
	r.mu.Lock()
	before := r.instances
	r.instances = all
	r.mu.Unlock()
	if r.onEvent == nil {
		return
	}
	services := *r.sharers.Load()
	for i := range all {
		one, old := &all[i], (*Instance)(nil)
		if j, known := find(before, one.ID); known {
			old = &before[j]
		}
		if kind, text := happened(old, one); kind != "" {
			r.onEvent(Event{Services: services, Kind: kind, Instance: one.ID, Text: text})
		}
	}
}
