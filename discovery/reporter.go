package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A reporter says how a watch does: in its status, in the log and by events. Methods whose comment says so may be
// called by any goroutine, the others by watch.run only.
type reporter struct {
	query    *Query       // normalized
	base     hclog.Logger // without the names of the services
	onEvent  func(Event)  // may be nil
	troubles *troubles
	sharers  atomic.Pointer[[]string] // services that want the query; not changed once stored

	forgotten bool // guarded by the lock of troubles

	// The following belong to watch.run.
	fails   int               // queries that failed since the last answer that was believed
	failing time.Time         // when the first of them failed
	bad     map[string]string // bad instances that were logged: why, by ID
	held    map[string]hold   // what was held after the last answer that was believed, by ID
	quiet   bool              // the end of the holds is not worth a log line

	mu        sync.Mutex  // guards the following
	status    WatchStatus // without what snapshot adds
	instances []Instance  // sorted by ID
}

// restore makes a set of an earlier process what is known. An empty one drops it.
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
	s.Query = *r.query
	s.Query.Tags, s.Query.Statuses = slices.Clone(r.query.Tags), slices.Clone(r.query.Statuses)
	return s
}

// failure returns the error of the last query, empty if it succeeded. Any goroutine may call it.
func (r *reporter) failure() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status.Error
}

// all returns what is known of the instances. Any goroutine may call it.
func (r *reporter) all() []Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.instances)
}

// queried notes that a query is being sent.
func (r *reporter) queried() { r.count(func(s *WatchStatus) { s.Queries++ }) }

// failed notes a query without an answer, which is repeated after pause.
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
	// Too few connections are logged where connections are handed out, and most queries get one at the next attempt.
	var refusal *consul.RefusalError
	if errors.As(err, &refusal) && r.fails <= 3 {
		return
	}
	// A single broken connection is repaired before anybody could read of it. What took long or cannot heal is news at
	// once.
	if r.fails > 1 || kind >= consul.Denied || isSlow(err) {
		r.troubles.enter(r, kind, err, r.failing)
	}
}

// disbelieved notes an answer that was not believed, and why.
func (r *reporter) disbelieved(why string, asked question, a *answer) {
	r.count(func(s *WatchStatus) { s.Doubted++ })
	r.logger().Debug("answer not believed", "why", why, "index", a.index, "asked_with", asked.index,
		"backend", a.backend, "instances", len(a.entries))
}

// published notes that a new set was published.
func (r *reporter) published(now time.Time, before, after int) {
	r.logger().Debug("endpoints changed", "before", before, "now", after)
	r.count(func(s *WatchStatus) {
		s.Updates++
		s.LastChange = now
	})
}

// counted notes what an answer that was believed came to.
func (r *reporter) counted(in instances, b *belief) {
	r.count(func(s *WatchStatus) {
		s.Saved = time.Time{}
		s.Endpoints, s.Bad, s.Duplicates = len(b.set), len(in.bad), in.duplicates
		s.Held, s.HeldUntil = len(b.held), b.letGo()
	})
}

// believed notes an answer that was believed without a doubt about the token.
func (r *reporter) believed(now time.Time, a *answer, next question) {
	r.fails = 0
	r.count(func(s *WatchStatus) {
		s.Error, s.ErrorSince = "", time.Time{}
		s.LastSuccess, s.Index, s.Backend = now, next.index, a.backend
	})
	r.troubles.leave(r)
}

// maxBadLogged is how many instances that are left out one answer may fill the log with.
const maxBadLogged = 10

// logBad logs the instances in bad that were not bad before, or for another reason.
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
		r.logger().Warn("more instances left out; lictor explain says which and why", "instances", more)
	}
	r.bad = bad
}

// logHeld logs when endpoints begin to be held, and when none is held any more. known is how many Consul names, and
// before how many there were in the set. An operator who deregisters the only instance of a service need not be
// alarmed, so that is one line.
func (r *reporter) logHeld(b *belief, known, before int) {
	began := len(r.held) == 0 && len(b.held) > 0
	ended := len(r.held) > 0 && len(b.held) == 0
	only, reasons := soleHold(b), reasonsOf(b.held)
	switch {
	case began && before == 1 && known == 0 && only.why == HoldDeregistered:
		r.logger().Info("the only instance was deregistered, it stays in use for a moment", "until", clock(only.until))
		r.quiet = true
	case began:
		r.logger().Warn("most instances have vanished at once, they stay in use for now",
			"vanished", len(b.held), "left", known, "reasons", reasons, "until", clock(b.letGoLast()))
	case ended && !r.quiet:
		r.logger().Info("no vanished instances are kept in use any more", "instances", known)
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

// soleHold returns the hold of a belief that has one.
func soleHold(b *belief) (only hold) {
	for _, h := range b.held {
		only = h
	}
	return only
}

// reasonsOf counts the reasons of holds, such as "2 critical, 1 forgotten".
func reasonsOf(held map[string]hold) string {
	counts := map[HoldReason]int{}
	for _, h := range held {
		counts[h.why]++
	}
	var words []string
	for _, why := range []HoldReason{HoldDeregistered, HoldCritical, HoldForgotten} {
		if n := counts[why]; n > 0 {
			words = append(words, fmt.Sprint(n, " ", why))
		}
	}
	return strings.Join(words, ", ")
}

// remember notes what is known of the instances now, and reports by events what has happened to them since the last
// time.
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
