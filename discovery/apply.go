package discovery

import (
	"errors"
	"slices"

	"github.com/lictor-proxy/lictor/lb"
)

// Apply makes watches what is watched, in place of those that were: of ConsulOptions, or of the last Apply. It may be called before
// and during Run. A query that was asked already goes on being asked, its answers and its place in Consul's state included, whatever
// services want it now. A service whose query changed keeps the endpoints that it has until Consul has answered the new one. Of a
// service that is no longer watched the sink is told that it is Removed, before Apply returns. After an error, nothing has changed.
func (c *Consul) Apply(watches []Watch) error {
	plans, wanted, err := planFor(watches, c.options.Datacenter)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return errors.New("the source has ended")
	}
	old := map[string]*watch{}
	for _, w := range c.watches {
		old[w.key] = w
	}
	c.watches = nil
	byKey := map[string]*watch{}
	var added []*watch
	for _, one := range wanted {
		w := old[one.key]
		if delete(old, one.key); w == nil {
			w = newWatch(c, one)
			added = append(added, w)
		}
		w.reporter.sharers.Store(&one.services)
		byKey[one.key] = w
		c.watches = append(c.watches, w)
	}
	for _, p := range plans {
		c.selectLocked(p, byKey)
	}
	c.removeLocked(watches)
	for _, w := range old {
		c.retireLocked(w)
	}
	c.appliedLocked(added, len(old))
	return nil
}

// appliedLocked tells the rest of the source that there are new watches, and that some are gone.
func (c *Consul) appliedLocked(added []*watch, gone int) {
	if c.store != nil && len(added)+gone > 0 {
		c.store.changed()
	}
	if c.slots != nil {
		c.slots.want(len(c.watches))
	}
	if c.ctx != nil {
		for i, w := range added {
			c.startLocked(w, i)
		}
	}
}

// selectLocked makes p happen.
func (c *Consul) selectLocked(p plan, watches map[string]*watch) {
	var tiers []*tier
	for _, one := range p.tiers {
		t := &tier{name: one.name}
		if t.watch = watches[one.key]; t.watch == nil {
			t.set, t.unheld, t.known = one.set, len(one.set), true
		}
		tiers = append(tiers, t)
	}
	old := c.selectors[p.service]
	if old != nil && old.same(p, tiers) {
		if before := Leaves(old.leaves.Swap(int32(p.leaves))); before == LeavesIgnored && p.leaves > before {
			for _, w := range old.watches() {
				w.poller.nudge()
			}
		}
		return
	}
	c.endLocked(old)
	f := &selector{service: p.service, consul: c, failover: p.failover, tiers: tiers, active: -1}
	f.leaves.Store(int32(p.leaves))
	c.selectors[p.service] = f
	for _, w := range f.watches() {
		w.publisher.attach(f)
	}
	if c.ctx != nil {
		f.begin()
	}
}

// endLocked ends a selector, which may be nil.
func (c *Consul) endLocked(f *selector) {
	if f == nil {
		return
	}
	f.close()
	for _, w := range f.watches() {
		w.publisher.detach(f)
	}
}

// removeLocked ends the selectors of services that are not in watches.
func (c *Consul) removeLocked(watches []Watch) {
	stay := map[string]bool{}
	for _, one := range watches {
		stay[one.Service] = true
	}
	var gone []lb.Endpoints
	for service, f := range c.selectors {
		if !stay[service] {
			c.endLocked(f)
			delete(c.selectors, service)
			gone = append(gone, lb.Endpoints{Service: service, Removed: true})
		}
	}
	if c.sink != nil && len(gone) > 0 {
		c.sink.OnUpdate(gone)
	}
}

// retireLocked ends a watch that feeds nothing any more. Where a cancelled query would go on taking one of the agent's connections, it
// keeps its slot and runs to its end instead.
func (c *Consul) retireLocked(w *watch) {
	w.poller.retired.Store(true)
	if w.cancel != nil && (c.slots == nil || !w.poller.lingers()) {
		w.cancel()
	}
	c.troubles.forget(&w.reporter)
}

// selectorsInOrder are the selectors in the order of their services' names.
func (c *Consul) selectorsInOrder() []*selector {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*selector
	for _, f := range c.selectors {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *selector) int {
		if a.service < b.service {
			return -1
		}
		return 1
	})
	return all
}
