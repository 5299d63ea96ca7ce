package discovery

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A feed carries sets from watches to the sink for one service. It has tiers, usually one, in order of preference, and the set is that of
// the first that has enough endpoints. A tier that has not enough any more is left at once; an earlier one has to have enough for a
// while before it gets the traffic back, so that one that comes and goes does not drag everybody along. That a tier cannot be asked
// any more is no reason to leave it: its last good set stays.
type feed struct {
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

// A tier is one of the places where a feed's endpoints come from.
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
func (f *feed) deliver(w *watch, set []lb.Endpoint, available int, restored bool, left []lb.Departure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.tiers {
		if t.watch == w {
			t.set, t.unheld, t.known, t.restored = set, available, true, restored
		}
	}
	f.left = append(f.left, left...)
	f.left = f.left[max(0, len(f.left)-maxUntold):]
	f.updateLocked(time.Now())
}

// begin makes f send sets from now on.
func (f *feed) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun = time.Now()
	f.updateLocked(f.begun)
}

// look is what the timer calls.
func (f *feed) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.updateLocked(time.Now())
}

// close ends the feed. Once it has returned, nothing more is sent.
func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.timer != nil {
		f.timer.Stop()
	}
}

// countLocked counts what is available in each tier.
func (f *feed) countLocked() {
	usable := f.consul.options.Usable
	for _, t := range f.tiers {
		t.available = t.unheld
		if usable == nil || len(f.tiers) == 1 { // then it does not matter
			continue
		}
		for _, e := range t.set {
			if !usable(f.service, e) {
				t.available--
			}
		}
		t.available = max(t.available, 0)
	}
}

// updateLocked sends the set that should be in use now, if it is not.
func (f *feed) updateLocked(now time.Time) {
	f.countLocked()
	best := f.bestLocked()
	if f.closed || f.begun.IsZero() || best < 0 {
		return
	}
	if wait := f.waitLocked(now, best); wait > 0 {
		if f.timer != nil {
			f.timer.Stop()
		}
		f.timer = time.AfterFunc(wait, f.look)
		best = f.active
	}
	if best < 0 || f.tiers[best].restored {
		return
	}
	set, left := f.tiers[best].set, f.departedLocked()
	if best == f.active && slices.Equal(set, f.sent) && len(left) == 0 {
		return
	}
	f.logLocked(best)
	f.active, f.sent = best, set
	f.consul.sink.OnUpdate([]lb.Endpoints{{Service: f.service, Endpoints: slices.Clone(set), Left: left}})
}

// departedLocked returns those that have left since it was called last. Who is in the set of any tier has not left the service.
func (f *feed) departedLocked() []lb.Departure {
	left := f.left
	f.left = nil
	if len(left) == 0 {
		return nil
	}
	here := map[place]bool{}
	for _, t := range f.tiers {
		for _, e := range t.set {
			here[placeOf(e)] = true
		}
	}
	return slices.DeleteFunc(left, func(d lb.Departure) bool { return here[placeOf(d.Endpoint)] })
}

// bestLocked returns the tier to use if there were no holding back: the first with enough endpoints, else the first with any, else the first
// that something is known of; -1: there is none.
func (f *feed) bestLocked() int {
	for _, enough := range []int{f.failover.Below, 1, 0} {
		for i, t := range f.tiers {
			if t.known && t.available >= enough {
				return i
			}
		}
	}
	return -1
}

// waitLocked returns how long best has to wait for its turn. It keeps better.
func (f *feed) waitLocked(now time.Time, best int) time.Duration {
	switch {
	case f.active < 0:
		others := f.tiers[:best]
		if f.tiers[best].available < f.failover.Below {
			others = f.tiers
		}
		if slices.ContainsFunc(others, func(t *tier) bool { return !t.known }) {
			return max(f.begun.Add(firstChance).Sub(now), 0)
		}
		return 0
	case best >= f.active || f.tiers[f.active].available < f.failover.Below:
		f.better = time.Time{}
		return 0
	case f.better.IsZero():
		f.better = now
	}
	return max(f.better.Add(f.failover.Hold).Sub(now), 0)
}

func (f *feed) logLocked(best int) {
	log := f.consul.options.Logger
	switch {
	case f.active < 0 && best == 0 || best == f.active:
	case best < f.active:
		f.better = time.Time{}
		log.Info("service is back from failover", "service", f.service, "to", f.tiers[best].name, "from", f.tiers[f.active].name)
	default:
		log.Warn("service fails over", "service", f.service, "to", f.tiers[best].name, "instances_there", f.tiers[best].available,
			"left_before_it", f.tiers[max(f.active, 0)].available)
	}
}

// Recount has what is available counted anew, of all services that have more than one tier: Usable says something else
// than it did.
func (c *Consul) Recount() {
	for _, f := range c.feedsInOrder() {
		f.look()
	}
}

// saved returns the set that an earlier process has saved, if there is one that counts.
func (f *feed) saved() ([]lb.Endpoint, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.countLocked()
	best := f.bestLocked()
	if best < 0 || f.active >= 0 || !slices.ContainsFunc(f.tiers[:best+1], func(t *tier) bool { return t.restored }) {
		return nil, false
	}
	return slices.Clone(f.tiers[best].set), true
}

// same tells whether f does what p asks for.
func (f *feed) same(p plan, tiers []*tier) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failover == p.failover && slices.EqualFunc(f.tiers, tiers, func(a, b *tier) bool {
		return a.watch == b.watch && a.name == b.name && (a.watch != nil || slices.Equal(a.set, b.set))
	})
}

// watches are the watches of f, each once.
func (f *feed) watches() []*watch {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*watch
	for _, t := range f.tiers {
		if t.watch != nil && !slices.Contains(all, t.watch) {
			all = append(all, t.watch)
		}
	}
	return all
}

// attach makes w send its sets, beginning with the present one, to f as well.
func (w *watch) attach(f *feed) {
	w.sending.Lock()
	defer w.sending.Unlock()
	w.feeds = append(w.feeds, f)
	if w.published || w.restored {
		f.deliver(w, w.endpoints, w.available, w.restored, nil)
	}
}

// detach ends that.
func (w *watch) detach(f *feed) {
	w.sending.Lock()
	defer w.sending.Unlock()
	w.feeds = slices.DeleteFunc(w.feeds, func(one *feed) bool { return one == f })
}
