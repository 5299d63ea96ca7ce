package discovery

import (
	"context"
	"errors"
	"slices"

	"github.com/lictor-proxy/lictor/lb"
)

// Apply replaces all watches. Apply may be called before Run and during Run. After an error, nothing has changed.
//
// A query that is already watched goes on, even if other services use it now. A service with a changed query keeps its
// endpoints until Consul has answered the new query. If a service is no longer watched, Apply sends the sink an update
// with Removed before it returns.
func (c *Consul) Apply(watches []Watch) error {
	if err := checkWatches(watches); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return errors.New("the source has ended")
	}
	c.applyLocked(slices.Clone(watches))
	return nil
}

// applyLocked is Apply for watches without errors.
func (c *Consul) applyLocked(watches []Watch) {
	c.declared = watches
	follow, gone, tiersOf := c.followLocked(watches)
	plans, wanted := planFor(watches, c.options.Datacenter, tiersOf)
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
		c.retireLocked(&w.poller, &w.reporter, w.cancel)
	}
	c.troubles.keep(c.isWantedLocked)
	c.appliedLocked(follow, added, gone+len(old))
}

// appliedLocked starts the added followers and watches, and informs the store and the slots of the change. gone is the
// number of removed ones.
func (c *Consul) appliedLocked(follow []*follower, added []*watch, gone int) {
	if c.store != nil && len(follow)+len(added)+gone > 0 {
		c.store.markDirty()
	}
	if c.slots != nil {
		c.slots.want(c.queriesLocked())
	}
	if c.ctx != nil {
		for i, f := range follow {
			c.startFollowerLocked(f, i)
		}
		for i, w := range added {
			c.startLocked(w, len(follow)+i)
		}
	}
}

// queriesLocked returns the number of queries that Consul gets again and again.
func (c *Consul) queriesLocked() int { return len(c.watches) + len(c.followers) }

// selectLocked makes p the plan of its service.
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
			for _, w := range old.sources() {
				w.poller.nudge()
			}
		}
		return
	}
	c.endLocked(old)
	f := &selector{service: p.service, consul: c, failover: p.failover, tiers: tiers, active: -1}
	if old != nil {
		f.standby = old.standingBy()
	}
	f.leaves.Store(int32(p.leaves))
	c.selectors[p.service] = f
	c.byService.Store(p.service, f)
	for _, w := range f.sources() {
		w.publisher.attach(f)
	}
	if c.ctx != nil {
		f.begin()
	}
}

// endLocked ends a selector. A nil selector is ignored.
func (c *Consul) endLocked(f *selector) {
	if f == nil {
		return
	}
	f.close()
	for _, w := range f.sources() {
		w.publisher.detach(f)
	}
}

// removeLocked ends the selectors of services that are not in watches, and sends their removal to the sink.
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
			c.byService.Delete(service)
			if stand := c.options.OnStandby; stand != nil {
				stand(service, nil)
			}
			gone = append(gone, lb.Endpoints{Service: service, Removed: true})
		}
	}
	if c.sink != nil && len(gone) > 0 {
		c.sink.OnUpdate(gone)
	}
}

// retireLocked ends a query that no service wants any more. If a cancelled query would keep one of the agent's
// connections, retireLocked does not cancel it: the query keeps its slot until it ends. cancel is nil before Run.
func (c *Consul) retireLocked(p *poller, r *reporter, cancel context.CancelFunc) {
	p.retired.Store(true)
	if cancel != nil && (c.slots == nil || !p.lingers()) {
		cancel()
	}
	c.troubles.forget(r, c.isWantedLocked)
}

// isWantedLocked reports whether a service is watched.
func (c *Consul) isWantedLocked(service string) bool { return c.selectors[service] != nil }

// selectorsInOrder returns the selectors, sorted by the names of their services.
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
