package discovery

import (
	"slices"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A publisher passes the set of a watch on to the services that want it. Safe for concurrent use: publish is called
// by watch.run only, everything else by any goroutine.
type publisher struct {
	watch *watch

	mu        sync.Mutex // guards the following, and is held while a set is passed on
	selectors []*selector
	endpoints []lb.Endpoint // published last, or saved by an earlier process
	available int           // endpoints that are not held
	held      map[string]hold
	joined    map[place]bool
	changed   time.Time // when endpoints last changed
	published bool      // endpoints are from an answer of Consul
	restored  bool      // endpoints were saved by an earlier process, and Consul has not answered yet
}

// restore makes a set of an earlier process the present one.
func (p *publisher) restore(s savedSet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restoreLocked(s)
}

func (p *publisher) restoreLocked(s savedSet) {
	p.endpoints, p.available, p.changed, p.restored = s.endpoints, len(s.endpoints)-len(s.held), s.changed, true
	p.held, p.joined = s.held, s.joined
}

// disown drops the set of an earlier process.
func (p *publisher) disown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endpoints, p.available, p.held, p.joined, p.restored = nil, 0, nil, nil, false
	for _, s := range p.selectors {
		s.disown(p.watch)
	}
}

// adopt passes on the set of an earlier process, as if it was an answer of Consul.
func (p *publisher) adopt(s savedSet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restoreLocked(s)
	p.published, p.restored = true, false
	p.passOnLocked(nil)
}

// publish passes on the set of b, how many of its endpoints are available, and who has left. It does nothing if the
// set is the one that was passed on last, unless tell is true. It reports whether the set is new; the first always is.
func (p *publisher) publish(b *belief, left []lb.Departure, tell bool) bool {
	endpoints, available := b.set, b.notHeld()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.joined = b.held, b.joined
	same, first := slices.Equal(p.endpoints, endpoints), !p.published
	if same && !first && available == p.available && !tell {
		return false
	}
	p.endpoints, p.available, p.published, p.restored, p.changed = endpoints, available, true, false, time.Now()
	p.passOnLocked(left)
	return !same || first
}

// departed passes on who has left, with the set as it is.
func (p *publisher) departed(left []lb.Departure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passOnLocked(left)
}

func (p *publisher) passOnLocked(left []lb.Departure) {
	for _, s := range p.selectors {
		s.deliver(p.watch, p.endpoints, p.available, p.restored, left)
	}
}

// attach passes the set on to s from now on, beginning with the present one if there is one.
func (p *publisher) attach(s *selector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.selectors = append(p.selectors, s)
	if p.published || p.restored {
		s.deliver(p.watch, p.endpoints, p.available, p.restored, nil)
	}
}

// detach passes nothing on to s from now on.
func (p *publisher) detach(s *selector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.selectors = slices.DeleteFunc(p.selectors, func(one *selector) bool { return one == s })
}

// interest returns how much the services want to know of endpoints that vanish.
func (p *publisher) mostInterest() (most Leaves) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.selectors {
		most = max(most, Leaves(s.leaves.Load()))
	}
	return most
}

// saved returns the set as it is to be saved under this key; false if there is none. With fresh, a set that an earlier
// process has saved is none.
func (p *publisher) saved(key string, fresh bool) (savedSet, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := savedSet{query: key, changed: p.changed, endpoints: p.endpoints, held: p.held, joined: p.joined}
	return s, p.published || p.restored && !fresh
}
