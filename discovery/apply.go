package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lictor-proxy/lictor/lb"
)

// Apply makes watches what is watched, in place of those that were: of ConsulOptions, or of the last Apply. It may be called before
// and during Run. A query that was asked already goes on being asked, its answers and its place in Consul's state included, whatever
// services want it now. A service whose query changed keeps the endpoints that it has until Consul has answered the new one. Of a
// service that is no longer watched the sink is told that it is Removed, before Apply returns. After an error, nothing has changed.
func (c *Consul) Apply(watches []Watch) error {
	wanted, err := distinct(watches, c.options.Datacenter)
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
	var added []*watch
	for _, one := range wanted {
		w := old[one.key]
		if delete(old, one.key); w == nil {
			w = newWatch(c, one)
			added = append(added, w)
		}
		w.services.Store(&one.services)
		c.watches = append(c.watches, w)
		for _, service := range one.services {
			c.feedLocked(service, w)
		}
	}
	c.removeLocked(watches)
	for _, w := range old {
		c.retireLocked(w)
	}
	if c.store != nil && (len(added) > 0 || len(old) > 0) {
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
	return nil
}

// feedLocked makes w what feeds service.
func (c *Consul) feedLocked(service string, w *watch) {
	f := c.feeds[service]
	if f == nil {
		f = &feed{service: service}
		c.feeds[service] = f
	}
	if f.from == w {
		return
	}
	if f.from != nil {
		f.from.detach(f)
	}
	f.from = w
	w.attach(f)
}

// removeLocked ends the feeds of services that are not in watches.
func (c *Consul) removeLocked(watches []Watch) {
	stay := map[string]bool{}
	for _, one := range watches {
		stay[one.Service] = true
	}
	var gone []lb.Endpoints
	for service, f := range c.feeds {
		if !stay[service] {
			f.from.detach(f)
			delete(c.feeds, service)
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
	w.retired.Store(true)
	if w.cancel != nil && (c.slots == nil || !w.lingers()) {
		w.cancel()
	}
	c.troubles.forget(w)
}

// A wanted is a query that somebody wants to be watched.
type wanted struct {
	key      string
	query    Query // normalized
	guard    Guard // with defaults
	services []string
}

// distinct returns the distinct queries of watches, in the order of the first that asked for each.
func distinct(watches []Watch, datacenter string) ([]*wanted, error) {
	var all []*wanted
	byKey, seen := map[string]*wanted{}, map[string]bool{}
	for _, one := range watches {
		q := one.Query
		if strings.TrimSpace(q.Service) == "" {
			q.Service = one.Service
		}
		q = q.normalize(datacenter)
		switch {
		case one.Service == "" || q.Service == "":
			return nil, errors.New("a watch without a service")
		case seen[one.Service]:
			return nil, fmt.Errorf("two watches for service %q", one.Service)
		}
		seen[one.Service] = true
		guard := one.Guard.withDefaults()
		key := fmt.Sprint(q.key(), guard)
		w := byKey[key]
		if w == nil {
			w = &wanted{key: key, query: q, guard: guard}
			byKey[w.key] = w
			all = append(all, w)
		}
		w.services = append(w.services, one.Service)
	}
	return all, nil
}

// A feed carries sets from a watch to the sink for one service.
type feed struct {
	service string
	from    *watch // guarded by Consul.mu
}

// attach makes w send its sets, beginning with the present one, to f as well.
func (w *watch) attach(f *feed) {
	w.sending.Lock()
	defer w.sending.Unlock()
	w.feeds = append(w.feeds, f)
	if w.published {
		w.sendLocked(f)
	}
}

// detach ends that. Once it has returned, w sends nothing more to f.
func (w *watch) detach(f *feed) {
	w.sending.Lock()
	defer w.sending.Unlock()
	w.feeds = slices.DeleteFunc(w.feeds, func(one *feed) bool { return one == f })
}

// sendLocked sends the present set to f.
func (w *watch) sendLocked(f *feed) {
	w.consul.sink.OnUpdate([]lb.Endpoints{{Service: f.service, Endpoints: slices.Clone(w.endpoints)}})
}
