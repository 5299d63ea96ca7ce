package lb

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How long an endpoint stays ejected: the first time, and at most, doubling in between. Each time is jittered, so
// that a fleet does not try an endpoint again at the same moment.
const (
	minEjection = time.Second
	maxEjection = time.Minute
)

// trialSilence is how long nothing bad may be heard of a trial for it to count as a success: of protocols where the
// endpoint need not say anything, silence is all there is.
const trialSilence = time.Second

// A health is what is known, from here, of one address that endpoints are at, whatever services they belong to.
//
//	    max failures in a row,                     its time is over:
//	    or refused                                 one use tries it
//	in --------------------------> ejected ---------------------------> on trial
//	^                                ^  |                                |   |
//	|                                |  | reached by others              |   |
//	|                                +--|--------------------------------+   |
//	|                                   |   failed: ejected twice as long    |
//	+-----------------------------------+------------------------------------+
//	                                        reached
//
// What counts as reached depends on why it was ejected: where it refused connections, or was not to be found, that
// it takes one is enough. Where it took them and reset them, it must send something, or keep the connection for
// trialSilence.
//
// Picks read the atomics; all else is behind mu, and mostly not needed: an endpoint that is fine is told so by one
// load.
type health struct {
	registry *healthRegistry
	address  address

	troubled     atomic.Bool   // it has failed since it was last reached
	ejectedUntil atomicInstant // when it may be tried; 0: it is not ejected
	due          atomicInstant // if ejected: when a pick should look at it again
	returnedAt   atomicInstant // when it was ejected no more; 0: it never was

	mu           sync.Mutex
	dialFailures int // failures in a row, but resets
	resets       int // in a row
	ejections    int // in a row
	cause        Cause
	trial        *trialUse

	users []*usage // of the members at the address; guarded by registry.mu
}

// A trialUse is the use that tries an ejected endpoint.
type trialUse struct {
	silentSince instant // when it connected, if nothing bad was heard since; 0: not connected; guarded by health.mu
}

// An address is where endpoints may be, whatever they are called.
type address struct {
	network Network
	host    string
	addr    netip.AddrPort
}

// failed counts a failure, which ejects if it is the max-th in a row; negative max: never.
func (h *health) failed(c Cause, max int, t *trialUse) {
	h.mu.Lock()
	now := h.registry.clock.now()
	h.troubled.Store(true)
	if c == Reset {
		h.resets++
	} else {
		h.dialFailures++
	}
	ejected := false
	switch until := h.ejectedUntil.Load(); {
	case until != 0 && t != nil && t == h.trial, until != 0 && h.trial == nil && now >= until:
		h.ejectLocked(c, now)
		ejected = true
	case until != 0: // a use that began before, or in spite of it: nothing new
	case max > 0 && (c == Refused || h.dialFailures >= max || h.resets >= max):
		h.ejectLocked(c, now)
		ejected = true
	}
	anew, tryIn := h.ejections == 1, h.ejectedUntil.Load().sub(now)
	h.mu.Unlock()
	if !ejected {
		return
	}
	for _, t := range h.registry.usersOf(h) {
		t.group.ejections.Add(1)
		t.group.review(t)
	}
	if anew {
		h.registry.notifyUsers(h, HealthChange{Ejected: true, Cause: c, TryIn: tryIn})
	}
}

func (h *health) ejectLocked(c Cause, now instant) {
	d := min(minEjection<<min(h.ejections, 16), maxEjection)
	h.ejections++
	h.cause, h.trial = c, nil
	until := now.add(time.Duration(float64(d) * (0.8 + 0.4*rand.Float64())))
	h.due.Store(until)
	h.ejectedUntil.Store(until)
}

// connected counts a connection that was taken.
func (h *health) connected(t *trialUse) {
	if !h.troubled.Load() {
		return
	}
	h.mu.Lock()
	h.dialFailures = 0
	changed, returned := false, false
	switch {
	case h.ejectedUntil.Load() == 0 && h.resets > 0: // it may be about to do just that again
	case h.ejectedUntil.Load() != 0 && h.cause == Reset:
		if t != nil && t == h.trial {
			h.startSilenceLocked(t)
			changed = true
		}
	default:
		returned = h.recoverLocked()
	}
	h.mu.Unlock()
	if changed || returned {
		h.registry.reviewUsers(h, returned)
	}
}

func (h *health) startSilenceLocked(t *trialUse) {
	t.silentSince = h.registry.clock.now()
	h.due.Store(t.silentSince.add(trialSilence))
}

// reached counts an answer.
func (h *health) reached() {
	if !h.troubled.Load() {
		return
	}
	h.mu.Lock()
	returned := h.recoverLocked()
	h.mu.Unlock()
	if returned {
		h.registry.reviewUsers(h, true)
	}
}

// recoverLocked forgets what was wrong, and tells whether the endpoint was ejected.
func (h *health) recoverLocked() bool {
	h.dialFailures, h.resets, h.ejections, h.cause, h.trial = 0, 0, 0, 0, nil
	h.troubled.Store(false)
	if h.ejectedUntil.Load() == 0 {
		return false
	}
	h.returnedAt.Store(h.registry.clock.now())
	h.ejectedUntil.Store(0)
	return true
}

// beginTrial begins a trial if it is time for one, and ends one that has been silent for long enough.
func (h *health) beginTrial(now instant) *trialUse {
	h.mu.Lock()
	until := h.ejectedUntil.Load()
	if until == 0 || now < h.due.Load() {
		h.mu.Unlock()
		return nil
	}
	var t *trialUse
	returned := false
	if h.trial != nil { // connected and silent, or it would not be due
		returned = h.recoverLocked()
	} else {
		t = &trialUse{}
		h.trial = t
		h.due.Store(distantFuture)
		if h.address.network == UDP {
			h.startSilenceLocked(t)
		}
	}
	h.mu.Unlock()
	h.registry.reviewUsers(h, returned)
	return t
}

// endTrial ends a trial, if it is not over. Connected and without a failure, it was a success; else another one may
// try. Over UDP a refusal may be on its way yet, so there it takes its time.
func (h *health) endTrial(t *trialUse) {
	h.mu.Lock()
	if h.trial != t || h.address.network == UDP {
		h.mu.Unlock()
		return
	}
	returned := false
	if t.silentSince != 0 {
		returned = h.recoverLocked()
	} else {
		h.trial = nil
		h.due.Store(h.ejectedUntil.Load())
	}
	h.mu.Unlock()
	h.registry.reviewUsers(h, returned)
}

// A healthRegistry keeps the healths of all addresses.
type healthRegistry struct {
	clock    clock
	onChange func(HealthChange) // nil: nobody wants to know

	mu      sync.Mutex
	healths map[address]*health
	// since when each has been without a user; it is remembered for a while, as Consul may put an instance back
	unused map[*health]instant
}

func newHealthRegistry() *healthRegistry {
	return &healthRegistry{clock: newClock(), healths: map[address]*health{}, unused: map[*health]instant{}}
}

// acquire gives t the health of its address.
func (b *healthRegistry) acquire(a address, t *usage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.healths[a]
	if h == nil {
		h = &health{registry: b, address: a}
		b.healths[a] = h
	}
	delete(b.unused, h)
	h.users = append(h.users, t)
	t.health = h
}

// release undoes a use.
func (b *healthRegistry) release(t *usage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := t.health
	h.users = slices.DeleteFunc(h.users, func(u *usage) bool { return u == t })
	switch {
	case len(h.users) > 0:
	case h.troubled.Load():
		b.unused[h] = b.clock.now()
	default:
		delete(b.healths, h.address)
	}
}

// dropUnused drops the healths that nobody has used for a while.
func (b *healthRegistry) dropUnused() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.now()
	for h, since := range b.unused {
		if now.sub(since) > 2*maxEjection {
			delete(b.unused, h)
			delete(b.healths, h.address)
		}
	}
}

// hasMember reports whether g has a member at an address.
func (b *healthRegistry) hasMember(a address, g *group) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.healths[a]
	return h != nil && slices.ContainsFunc(h.users, func(t *usage) bool { return t.group == g })
}

// reviewUsers has all who use h look at it, and says that it is ejected no more, if it has returned.
func (b *healthRegistry) reviewUsers(h *health, returned bool) {
	for _, t := range b.usersOf(h) {
		t.group.review(t)
	}
	if returned {
		b.notifyUsers(h, HealthChange{})
	}
}

// A HealthChange says that an endpoint of a service is ejected, or that it is no longer.
type HealthChange struct {
	Service, Endpoint string // the ID
	Ejected           bool
	Cause             Cause         // if it is
	TryIn             time.Duration // until it is tried again, if it is
}

// NotifyHealth has f told of each endpoint that is ejected, the first time of several in a row, and when it is no
// longer, for each service that takes notice. Whoever uses an endpoint calls it, so it must not wait for anything.
// There is one f; it is to be set before there are updates.
func (b *RoundRobin) NotifyHealth(f func(HealthChange)) { b.registry.onChange = f }

func (b *healthRegistry) notifyUsers(h *health, c HealthChange) {
	if b.onChange == nil {
		return
	}
	for _, t := range b.usersOf(h) {
		if t.group.options().MaxFails >= 0 {
			c.Service, c.Endpoint = t.group.name, t.id
			b.onChange(c)
		}
	}
}

func (b *healthRegistry) usersOf(h *health) []*usage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(h.users)
}
