package discovery

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A selector passes the set of one service to the sink. The service has tiers in order of preference, as a rule one.
// The set is that of the first tier with enough endpoints.
//
// A tier that does not have enough any more is left at once. An earlier tier must have enough for Failover.Hold
// before the service returns to it, so that clients do not follow a tier that comes and goes. A tier that cannot be
// asked any more is not left: its last good set stays. Safe for concurrent use.
type selector struct {
	service  string
	consul   *Consul
	failover Failover     // with defaults
	leaves   atomic.Int32 // a value of type Leaves

	mu     sync.Mutex // guards the following, and is held while a set is sent
	tiers  []*tier
	active int            // tier whose set was sent last; -1: nothing was sent
	sent   []lb.Endpoint  // the set that was sent last
	left   []lb.Departure // from any tier, not yet sent
	begun  time.Time      // when begin was called; zero: nothing may be sent yet
	better time.Time      // since when a tier before the active one has had enough; zero: none has
	timer  *time.Timer    // calls look; nil: it is not needed
	closed bool           // nothing is sent any more
}

// A tier is one of the places where the endpoints of a service come from.
type tier struct {
	name      string
	watch     *watch        // where set comes from; nil: it never changes
	set       []lb.Endpoint // the last one
	unheld    int           // endpoints in set that are not held
	available int           // endpoints in set that are not held and can be used, as countLocked found
	known     bool          // there is a set
	restored  bool          // set was saved by an earlier process; Consul.Saved returns it, and it is not sent
}

// firstChance is how long the first set of a service waits for the sets of earlier tiers.
const firstChance = 2 * time.Second

// deliver takes the set of w, and the endpoints that have left it.
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

// begin allows s to send sets from now on.
func (s *selector) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = time.Now()
	s.updateLocked(s.begun)
}

// look sends the set that should be in use now, if it is not.
func (s *selector) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updateLocked(time.Now())
}

// close ends the selector. Nothing is sent after it has returned.
func (s *selector) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// countLocked counts the available endpoints of each tier.
func (s *selector) countLocked() {
	usable := s.consul.options.Usable
	for _, t := range s.tiers {
		t.available = t.unheld
		if usable == nil || len(s.tiers) == 1 { // with one tier it does not matter
			continue
		}
		for _, e := range t.set {
			if !usable(s.service, e) {
				t.available--
			}
		}
		t.available = max(t.available, 0)
	}
}

// updateLocked sends the set that should be in use now, if it is not, and the departures.
func (s *selector) updateLocked(now time.Time) {
	s.countLocked()
	best := s.bestLocked()
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
	s.active, s.sent = best, set
	s.consul.sink.OnUpdate([]lb.Endpoints{{Service: s.service, Endpoints: slices.Clone(set), Left: left}})
}

// departedLocked returns the departures since its last call. An endpoint in the set of any tier has not left the
// service.
func (s *selector) departedLocked() []lb.Departure {
	left := s.left
	s.left = nil
	if len(left) == 0 {
		return nil
	}
	here := map[place]bool{}
	for _, t := range s.tiers {
		for _, e := range t.set {
			here[placeOf(e)] = true
		}
	}
	return slices.DeleteFunc(left, func(d lb.Departure) bool { return here[placeOf(d.Endpoint)] })
}

// bestLocked returns the tier to use, without regard to waiting: the first with enough endpoints, else the first
// with any endpoint, else the first with a set, even if it is empty. It returns -1 if no tier has a set.
func (s *selector) bestLocked() int {
	for _, enough := range []int{s.failover.Below, 1, 0} {
		for i, t := range s.tiers {
			if t.known && t.available >= enough {
				return i
			}
		}
	}
	return -1
}

// waitLocked returns how long to wait before the service may use best. It updates better.
func (s *selector) waitLocked(now time.Time, best int) time.Duration {
	switch {
	case s.active < 0:
		others := s.tiers[:best]
		if s.tiers[best].available < s.failover.Below {
			others = s.tiers
		}
		if slices.ContainsFunc(others, func(t *tier) bool { return !t.known }) {
			return max(s.begun.Add(firstChance).Sub(now), 0)
		}
		return 0
	case best >= s.active || s.tiers[s.active].available < s.failover.Below:
		s.better = time.Time{}
		return 0
	case s.better.IsZero():
		s.better = now
	}
	return max(s.better.Add(s.failover.Hold).Sub(now), 0)
}

// logLocked logs that the service goes to another tier, which is best.
func (s *selector) logLocked(best int) {
	log := s.consul.options.Logger
	switch {
	case s.active < 0 && best == 0 || best == s.active:
	case best < s.active:
		s.better = time.Time{}
		log.Info("service is back from failover", "service", s.service,
			"to", s.tiers[best].name, "from", s.tiers[s.active].name)
	default:
		log.Warn("service fails over", "service", s.service, "to", s.tiers[best].name,
			"instances_there", s.tiers[best].available, "left_before_it", s.tiers[max(s.active, 0)].available)
	}
}

// Recount counts the available endpoints of all services again. It is to be called when the answers of
// ConsulOptions.Usable have changed.
func (c *Consul) Recount() {
	for _, s := range c.selectorsInOrder() {
		s.look()
	}
}

// saved returns the set to use until Consul answers, if an earlier process has saved one that matters.
func (s *selector) saved() ([]lb.Endpoint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countLocked()
	best := s.bestLocked()
	if best < 0 || s.active >= 0 || !slices.ContainsFunc(s.tiers[:best+1], func(t *tier) bool { return t.restored }) {
		return nil, false
	}
	return slices.Clone(s.tiers[best].set), true
}

// same reports whether s does what p says, with these tiers.
func (s *selector) same(p plan, tiers []*tier) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failover == p.failover && slices.EqualFunc(s.tiers, tiers, func(a, b *tier) bool {
		return a.watch == b.watch && a.name == b.name && (a.watch != nil || slices.Equal(a.set, b.set))
	})
}

// sources returns the watches of the tiers, each once.
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
