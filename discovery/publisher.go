package discovery

import (
	"slices"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A publisher passes the set of a watch to the services that want it. Only watch.run may call publish; any goroutine
// may call the other methods. A publisher is safe for concurrent use.
type publisher struct {
	watch *watch

	mu        sync.Mutex // guards the following fields; also held while a set is passed on
	selectors []*selector
	endpoints []lb.Endpoint // published last, or saved by an earlier process
	available int           // number of endpoints that are not held
	held      map[string]hold
	joined    map[lb.Place]bool
	changed   time.Time // when endpoints last changed
	published bool      // endpoints come from an answer of Consul
	restored  bool      // endpoints were saved by an earlier process, and Consul has not answered yet
}

// restore makes the set of an earlier process the current set.
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

// adopt passes on the set of an earlier process, as if it were an answer of Consul.
func (p *publisher) adopt(s savedSet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restoreLocked(s)
	p.published, p.restored = true, false
	p.passOnLocked(nil)
}

// publish passes on the set of b, its number of available endpoints, and the endpoints that have left. If the set
// equals the last one, publish does nothing, unless tell is true. publish reports whether the set is new; the first set
// always is.
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

// departed passes on endpoints that have left, with an unchanged set.
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

// attach passes each set to s from now on. If there already is a set, attach passes it to s at once.
func (p *publisher) attach(s *selector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.selectors = append(p.selectors, s)
	if p.published || p.restored {
		s.deliver(p.watch, p.endpoints, p.available, p.restored, nil)
	}
}

// detach stops passing sets to s.
func (p *publisher) detach(s *selector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.selectors = slices.DeleteFunc(p.selectors, func(one *selector) bool { return one == s })
}

// mostInterest returns how much the services want to know about vanished endpoints: the largest Leaves of all services.
func (p *publisher) mostInterest() (most Leaves) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.selectors {
		most = max(most, Leaves(s.leaves.Load()))
	}
	return most
}

// saved returns the set in the form to save under key. saved returns false if there is no set. With fresh, sets that an
// earlier process has saved do not count.
func (p *publisher) saved(key string, fresh bool) (savedSet, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := savedSet{query: key, changed: p.changed, endpoints: p.endpoints, held: p.held, joined: p.joined}
	return s, p.published || p.restored && !fresh
}
