package lb

import (
	"slices"
	"sync"
	"time"
)

// unusedHealth is how long the health of an address without a user is kept. Consul may put the instance back.
const unusedHealth = 2 * maxEjection

// A healthRegistry holds the health of each address. Its methods may be called concurrently.
type healthRegistry struct {
	clock    clock
	onChange func(HealthChange) // the callback of NotifyHealth; nil: none

	mu      sync.Mutex
	healths map[address]*health
	unused  map[*health]instant // those without a user, and since when
}

func newHealthRegistry() *healthRegistry {
	return &healthRegistry{clock: newClock(), healths: map[address]*health{}, unused: map[*health]instant{}}
}

// acquire makes u a user of the health of address a.
func (r *healthRegistry) acquire(a address, u *usage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.healths[a]
	if h == nil {
		h = &health{registry: r, address: a}
		r.healths[a] = h
	}
	delete(r.unused, h)
	h.users = append(h.users, u)
	u.health = h
}

// release undoes acquire. It keeps a health with failures for a while, see dropUnused.
func (r *healthRegistry) release(u *usage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := u.health
	h.users = slices.DeleteFunc(h.users, func(user *usage) bool { return user == u })
	switch {
	case len(h.users) > 0:
	case h.marked.Load():
		r.unused[h] = r.clock.now()
	default:
		delete(r.healths, h.address)
	}
}

// dropUnused drops the healths that have had no user for longer than unusedHealth.
func (r *healthRegistry) dropUnused() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.now()
	for h, since := range r.unused {
		if now.sub(since) > unusedHealth {
			delete(r.unused, h)
			delete(r.healths, h.address)
		}
	}
}

// hasMember reports whether g has a member at address a.
func (r *healthRegistry) hasMember(a address, g *group) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.healths[a]
	return h != nil && slices.ContainsFunc(h.users, func(u *usage) bool { return u.group == g && !u.standby })
}

// usersOf returns a copy of the users of h.
func (r *healthRegistry) usersOf(h *health) []*usage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(h.users)
}

// reviewUsers has all users of h review it. If returned is true, the ejection of h has ended, and it notifies the
// callback.
func (r *healthRegistry) reviewUsers(h *health, returned bool) {
	for _, u := range r.usersOf(h) {
		u.group.review(u)
	}
	if returned {
		r.notifyUsers(h, HealthChange{})
	}
}

// A HealthChange says that an endpoint of a service was ejected, or that its ejection has ended.
type HealthChange struct {
	Service, Endpoint string // Endpoint is the ID
	Ejected           bool
	Cause             Cause         // if Ejected
	TryIn             time.Duration // if Ejected: how long until it is tried
}

// NotifyHealth sets the callback for ejections. The balancer calls f when an endpoint is ejected, the first time of
// several in a row, and when its ejection ends. It calls f for each service that has the endpoint and does not ignore
// ejections. f is called from whatever reports the change, so it must not block. There is one callback; set it before
// the first update.
func (b *RoundRobin) NotifyHealth(f func(HealthChange)) { b.registry.onChange = f }

// notifyUsers calls the callback with c for each service that has h and does not ignore ejections. An endpoint that is
// both a member and one that stands by is notified once.
func (r *healthRegistry) notifyUsers(h *health, c HealthChange) {
	if r.onChange == nil {
		return
	}
	notified := map[HealthChange]bool{}
	for _, u := range r.usersOf(h) {
		if c.Service, c.Endpoint = u.group.name, u.id; u.group.options().MaxFails >= 0 && !notified[c] {
			notified[c] = true
			r.onChange(c)
		}
	}
}
