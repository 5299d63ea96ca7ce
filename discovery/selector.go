package discovery

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A selector passes the set of one service to the sink. The service has tiers in order of preference, usually just one.
// The selector uses the set of the first tier with enough endpoints, at least one of which does not fail: see
// Failover.choose.
//
// The selector leaves a tier at once when it no longer has enough endpoints. An earlier tier must have enough endpoints
// for Failover.Hold before the service returns to it, so that clients do not follow an unstable tier. A tier that can
// no longer be queried keeps its last good set, and the selector does not leave it for that reason. A selector is safe
// for concurrent use.
type selector struct {
	service  string
	consul   *Consul
	failover Failover     // with defaults
	leaves   atomic.Int32 // a value of type Leaves
	nudged   atomic.Bool  // lookAgain is about to be called

	mu     sync.Mutex // guards the following fields; also held while a set is sent
	tiers  []*tier
	active int            // tier of the set that was sent last; -1: no set was sent
	why    string         // why active is not the first tier; empty: it is the first
	sent   []lb.Endpoint  // the set that was sent last
	left   []lb.Departure // departures from all tiers that are not yet sent
	begun  time.Time      // when begin was called; zero: no set may be sent yet
	better time.Time      // when a tier before the active one became good; zero: none is good
	timer  *time.Timer    // calls look; nil: not needed
	closed bool           // no more sets are sent

	standby     []lb.Endpoint // the last argument of OnStandby
	toldStandby bool          // OnStandby was called
}

// A tier is one of the places where the endpoints of a service come from.
type tier struct {
	standing   // set by countLocked, except for known
	name       string
	watch      *watch        // the watch that supplies set; nil: set never changes
	set        []lb.Endpoint // the last set
	unheld     int           // number of endpoints in set that are not held
	restored   bool          // an earlier process saved set; Consul.Saved returns set, and it is not sent
	distrusted bool          // all endpoints of the tier failed during its last use, or since
}

// firstChance is how long the first set of a service waits for the sets of earlier tiers.
const firstChance = 2 * time.Second

// deliver takes a new set of w, and the endpoints that have left it.
func (s *selector) deliver(w *watch, set []lb.Endpoint, available int, restored bool, left []lb.Departure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tiers {
		if t.watch == w {
			t.set, t.unheld, t.known, t.restored = set, available, true, restored
		}
	}
	s.left = append(s.left, left...)
	s.left = s.left[max(0, len(s.left)-maxUntold):]
	s.updateLocked(time.Now())
}

// disown drops the set of w that an earlier process has saved. The sink may have this set from Consul.Saved.
func (s *selector) disown(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tiers {
		if t.watch == w && t.restored {
			t.set, t.unheld, t.known, t.restored = nil, 0, false, false
		}
	}
	if s.active < 0 && !s.closed && !s.begun.IsZero() {
		s.consul.sink.OnUpdate([]lb.Endpoints{{Service: s.service}})
	}
	s.updateLocked(time.Now())
}

// begin allows the selector to send sets.
func (s *selector) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = time.Now()
	s.updateLocked(s.begun)
}

// look sends the set that should be in use now, unless it was already sent.
func (s *selector) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updateLocked(time.Now())
}

// close ends the selector. The selector sends nothing after close has returned.
func (s *selector) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// countLocked counts the usable and the failing endpoints of each tier. countLocked returns the standing of each tier.
func (s *selector) countLocked() []standing {
	o := &s.consul.options
	all := make([]standing, len(s.tiers))
	for i, t := range s.tiers {
		t.available, t.usable, t.failing = t.unheld, len(t.set), 0
		if len(s.tiers) > 1 { // with a single tier, the counts do not matter
			usable := s.usableLocked(t)
			t.usable = len(usable)
			t.available = max(t.unheld-(len(t.set)-len(usable)), 0)
			if o.Failing != nil && s.failover.OnHealth {
				t.failing = o.Failing(s.service, usable)
			}
		}
		all[i] = t.standing
	}
	return all
}

// updateLocked sends the set that should be in use now, unless it was already sent, and the departures. updateLocked
// also passes the standby endpoints to OnStandby.
func (s *selector) updateLocked(now time.Time) {
	s.sendLocked(now)
	s.standByLocked()
}

func (s *selector) sendLocked(now time.Time) {
	best := s.failover.choose(s.countLocked())
	if s.closed || s.begun.IsZero() || best < 0 {
		return
	}
	if wait := s.waitLocked(now, best); wait > 0 {
		if s.timer != nil {
			s.timer.Stop()
		}
		s.timer = time.AfterFunc(wait, s.look)
		best = s.active
	}
	if best < 0 || s.tiers[best].restored {
		return
	}
	set, left := s.tiers[best].set, s.departedLocked()
	if best == s.active && slices.Equal(set, s.sent) && len(left) == 0 {
		return
	}
	s.logLocked(best)
	if best != s.active {
		s.why = s.reasonLocked(best)
	}
	s.active, s.sent = best, set
	s.consul.sink.OnUpdate([]lb.Endpoints{{Service: s.service, Endpoints: slices.Clone(set), Left: left}})
}

// departedLocked returns the departures since its last call. An endpoint that is in the set of any tier has not left
// the service.
func (s *selector) departedLocked() []lb.Departure {
	left := s.left
	s.left = nil
	if len(left) == 0 {
		return nil
	}
	here := map[lb.Place]bool{}
	for _, t := range s.tiers {
		for _, e := range t.set {
			here[e.Place()] = true
		}
	}
	return slices.DeleteFunc(left, func(d lb.Departure) bool { return here[d.Endpoint.Place()] })
}

// reasonLocked returns why the service uses the tier best instead of the tier before it. reasonLocked returns an empty
// string if best is the first tier.
func (s *selector) reasonLocked(best int) string {
	if best == 0 {
		return ""
	}
	t := s.tiers[best-1]
	return s.failover.shortfall(t.name, t.standing)
}

// waitLocked returns how long the service must wait before it may use the tier best. waitLocked updates better.
func (s *selector) waitLocked(now time.Time, best int) time.Duration {
	switch {
	case s.active < 0:
		others := s.tiers[:best]
		if !s.failover.good(s.tiers[best].standing) {
			others = s.tiers
		}
		if slices.ContainsFunc(others, func(t *tier) bool { return !t.known }) {
			return max(s.begun.Add(firstChance).Sub(now), 0)
		}
		return 0
	case best >= s.active || !s.failover.good(s.tiers[s.active].standing):
		s.better = time.Time{}
		return 0
	case s.better.IsZero():
		s.better = now
	}
	return max(s.better.Add(s.failover.Hold).Sub(now), 0)
}

// logLocked logs that the service changes to the tier best.
func (s *selector) logLocked(best int) {
	to := s.tiers[best].name
	var text string
	switch {
	case s.active < 0 && best == 0 || best == s.active:
		return
	case best < s.active:
		s.better = time.Time{}
		from := s.tiers[s.active].name
		s.consul.changes.add(failoverReport{service: s.service, to: to, from: from, back: true})
		text = "back to " + to + " from " + from
	default:
		why := s.reasonLocked(best)
		s.consul.changes.add(failoverReport{service: s.service, to: to, reason: why,
			there: s.tiers[best].available, left: s.tiers[max(s.active, 0)].available})
		text = "served by " + to + ": " + why
	}
	if f := s.consul.options.OnEvent; f != nil {
		f(Event{Services: []string{s.service}, Kind: EventFailover, Text: text})
	}
}

// Recount counts the available endpoints of all services again. Call Recount when the answers of ConsulOptions.Usable
// have changed.
func (c *Consul) Recount() {
	for _, s := range c.selectorsInOrder() {
		s.look()
	}
}

// saved returns the set to use until Consul answers. saved returns false if no earlier process has saved a set that
// would be used.
func (s *selector) saved() ([]lb.Endpoint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := s.failover.choose(s.countLocked())
	if best < 0 || s.active >= 0 || !slices.ContainsFunc(s.tiers[:best+1], func(t *tier) bool { return t.restored }) {
		return nil, false
	}
	return slices.Clone(s.tiers[best].set), true
}

// same reports whether s already follows the plan p, with these tiers.
func (s *selector) same(p plan, tiers []*tier) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failover == p.failover && slices.EqualFunc(s.tiers, tiers, func(a, b *tier) bool {
		return a.watch == b.watch && a.name == b.name && (a.watch != nil || slices.Equal(a.set, b.set))
	})
}

// sources returns the watches of the tiers, each watch once.
func (s *selector) sources() []*watch {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*watch
	for _, t := range s.tiers {
		if t.watch != nil && !slices.Contains(all, t.watch) {
			all = append(all, t.watch)
		}
	}
	return all
}
