package lb

import (
	"slices"
	"sync"
	"time"
)

// unusedHealth is how long the registry keeps the health of an address without users. The instance may come back to
// Consul.
const unusedHealth = 2 * maxEjection

// A healthRegistry holds the health of each address. The methods of a healthRegistry may be called concurrently.
type healthRegistry struct {
	clock    clock
	onChange func(HealthChange) // the NotifyHealth callback; nil: none
	onDenial func(DenialChange) // the NotifyDenials callback; nil: none

	mu      sync.Mutex
	healths map[address]*health
	unused  map[*health]instant // healths without users, and since when they have none
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

// release undoes acquire. If the health has failures, the registry keeps it for unusedHealth, see dropUnused.
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

// dropUnused drops each health that has had no users for longer than unusedHealth.
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

// reviewUsers calls review for all users of h. If returned is true, the ejection of h has ended, and reviewUsers calls
// the NotifyHealth callback.
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
	Service, Endpoint string // Endpoint is the endpoint's ID
	Ejected           bool
	Cause             Cause         // if Ejected: why
	TryIn             time.Duration // if Ejected: time until the next trial
}

// NotifyHealth sets the callback for ejections. The balancer calls f when an endpoint is ejected and when its ejection
// ends. If an endpoint is ejected several times in a row, f is called for the first time only. f is called for each
// service that has the endpoint and does not ignore ejections. f must not block, because the goroutine that reports the
// failure calls it. The balancer has only one NotifyHealth callback. Set the callback before the first update.
func (b *RoundRobin) NotifyHealth(f func(HealthChange)) { b.registry.onChange = f }

// notifyUsers calls the callback with c for each service that has h and does not ignore ejections. For an endpoint that
// is both a member and on standby, notifyUsers calls the callback once.
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
