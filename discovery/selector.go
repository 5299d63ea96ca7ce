package discovery

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A selector carries sets from watches to the sink for one service. It has tiers, usually one, in order of preference, and the set is that of
// the first that has enough endpoints. A tier that has not enough any more is left at once; an earlier one has to have enough for a
// while before it gets the traffic back, so that one that comes and goes does not drag everybody along. That a tier cannot be asked
// any more is no reason to leave it: its last good set stays.
type selector struct {
	service  string
	consul   *Consul
	failover Failover     // with defaults
	leaves   atomic.Int32 // a Leaves

	mu     sync.Mutex // guards the following, and is held while a set is sent
	tiers  []*tier
	active int            // whose set was sent; -1: nothing was sent
	sent   []lb.Endpoint  // that set
	left   []lb.Departure // from any tier, that the sink has not been told of yet
	begun  time.Time      // when sets may be sent from; zero: Run has not been called
	better time.Time      // since when a tier before the active one has had enough; zero: none has
	timer  *time.Timer    // to look again; nil: no need to
	closed bool           // nothing is to be sent any more
}

// A tier is one of the places where a selector's endpoints come from.
type tier struct {
	name      string
	watch     *watch        // nil: the set never changes
	set       []lb.Endpoint // the last
	unheld    int           // in it, without those that are held
	available int           // as many as unheld, without those that are not usable
	known     bool          // set means something
	restored  bool          // set is what an earlier process has saved, which was handed out by Consul.Saved
}

// firstChance is how long the first set of a service waits for the tiers before the one that it is of.
const firstChance = 2 * time.Second

// deliver takes the set of w, and who has left it.
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

// begin makes s send sets from now on.
func (s *selector) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = time.Now()
	s.updateLocked(s.begun)
}

// look is what the timer calls.
func (s *selector) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updateLocked(time.Now())
}

// close ends the selector. Once it has returned, nothing more is sent.
func (s *selector) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// countLocked counts what is available in each tier.
func (s *selector) countLocked() {
	usable := s.consul.options.Usable
	for _, t := range s.tiers {
		t.available = t.unheld
		if usable == nil || len(s.tiers) == 1 { // then it does not matter
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

// updateLocked sends the set that should be in use now, if it is not.
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

// departedLocked returns those that have left since it was called last. Who is in the set of any tier has not left the service.
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

// bestLocked returns the tier to use if there were no holding back: the first with enough endpoints, else the first with any, else the first
// that something is known of; -1: there is none.
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

// waitLocked returns how long best has to wait for its turn. It keeps better.
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

func (s *selector) logLocked(best int) {
	log := s.consul.options.Logger
	switch {
	case s.active < 0 && best == 0 || best == s.active:
	case best < s.active:
		s.better = time.Time{}
		log.Info("service is back from failover", "service", s.service, "to", s.tiers[best].name, "from", s.tiers[s.active].name)
	default:
		log.Warn("service fails over", "service", s.service, "to", s.tiers[best].name, "instances_there", s.tiers[best].available,
			"left_before_it", s.tiers[max(s.active, 0)].available)
	}
}

// Recount has what is available counted anew, of all services that have more than one tier: Usable says something else
// than it did.
func (c *Consul) Recount() {
	for _, s := range c.selectorsInOrder() {
		s.look()
	}
}

// saved returns the set that an earlier process has saved, if there is one that counts.
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

// same tells whether s does what p asks for.
func (s *selector) same(p plan, tiers []*tier) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failover == p.failover && slices.EqualFunc(s.tiers, tiers, func(a, b *tier) bool {
		return a.watch == b.watch && a.name == b.name && (a.watch != nil || slices.Equal(a.set, b.set))
	})
}

// watches are the watches of s, each once.
func (s *selector) watches() []*watch {
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
