package discovery

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A selector passes the set of one service to the sink. The service has tiers in order of preference, as a rule one.
// The set is that of the first tier with enough endpoints, of which one at least does not fail: see Failover.choose.
//
// A tier that does not have enough any more is left at once. An earlier tier must have enough for Failover.Hold
// before the service returns to it, so that clients do not follow a tier that comes and goes. A tier that cannot be
// asked any more is not left: its last good set stays. Safe for concurrent use.
type selector struct {
	service  string
	consul   *Consul
	failover Failover     // with defaults
	leaves   atomic.Int32 // a value of type Leaves
	nudged   atomic.Bool  // lookAgain is about to be called

	mu     sync.Mutex // guards the following, and is held while a set is sent
	tiers  []*tier
	active int            // tier whose set was sent last; -1: nothing was sent
	why    string         // why that is not the first tier; empty: it is
	sent   []lb.Endpoint  // the set that was sent last
	left   []lb.Departure // from any tier, not yet sent
	begun  time.Time      // when begin was called; zero: nothing may be sent yet
	better time.Time      // since when a tier before the active one has been good; zero: none is
	timer  *time.Timer    // calls look; nil: it is not needed
	closed bool           // nothing is sent any more

	standby     []lb.Endpoint // what OnStandby was told last
	toldStandby bool          // OnStandby was called
}

// A tier is one of the places where the endpoints of a service come from.
type tier struct {
	standing   // as countLocked found it, but for known
	name       string
	watch      *watch        // where set comes from; nil: it never changes
	set        []lb.Endpoint // the last one
	unheld     int           // endpoints in set that are not held
	restored   bool          // set was saved by an earlier process; Consul.Saved returns it, and it is not sent
	distrusted bool          // all its endpoints failed when it was in use last, or since
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

// disown drops the set of w that an earlier process has saved, which the sink has got from Consul.Saved.
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

// countLocked counts the endpoints of each tier that can be used, and those that fail. It returns how the tiers stand.
func (s *selector) countLocked() []standing {
	o := &s.consul.options
	all := make([]standing, len(s.tiers))
	for i, t := range s.tiers {
		t.available, t.usable, t.failing = t.unheld, len(t.set), 0
		if len(s.tiers) > 1 { // with one tier it does not matter
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

// updateLocked sends the set that should be in use now, if it is not, and the departures. Then it passes on which
// endpoints stand by.
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

// reasonLocked returns why the service uses best, and not the tier before it; empty if there is none.
func (s *selector) reasonLocked(best int) string {
	if best == 0 {
		return ""
	}
	t := s.tiers[best-1]
	return s.failover.shortfall(t.name, t.standing)
}

// waitLocked returns how long to wait before the service may use best. It updates better.
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

// logLocked logs that the service goes to another tier, which is best.
func (s *selector) logLocked(best int) {
	log, to := s.consul.options.Logger, s.tiers[best].name
	var text string
	switch {
	case s.active < 0 && best == 0 || best == s.active:
		return
	case best < s.active:
		s.better = time.Time{}
		from := s.tiers[s.active].name
		log.Info("service is back from failover", "service", s.service, "to", to, "from", from)
		text = "back to " + to + " from " + from
	default:
		why := s.reasonLocked(best)
		log.Warn("service fails over", "service", s.service, "to", to, "reason", why,
			"instances_there", s.tiers[best].available, "left_before_it", s.tiers[max(s.active, 0)].available)
		text = "served by " + to + ": " + why
	}
	if f := s.consul.options.OnEvent; f != nil {
		f(Event{Services: []string{s.service}, Kind: EventFailover, Text: text})
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
	best := s.failover.choose(s.countLocked())
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
