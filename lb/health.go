package lb

import (
	"math"
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
	book    *book
	address address

	troubled atomic.Bool  // it has failed since it was last reached
	until    atomic.Int64 // when it may be tried; 0: it is not ejected
	due      atomic.Int64 // if ejected: when a pick should look at it again
	returned atomic.Int64 // when it was ejected no more; 0: it never was

	mu        sync.Mutex
	dials     int // failures in a row, but resets
	resets    int // in a row
	ejections int // in a row
	cause     Cause
	trial     *trial

	users []*tally // of the members at the address; guarded by book.mu
}

// A trial is the use that tries an ejected endpoint.
type trial struct {
	silent int64 // since when it has been connected and heard nothing bad; 0: it is not connected; guarded by health.mu
}

// An address is where endpoints may be, whatever they are called.
type address struct {
	network Network
	host    string
	addr    netip.AddrPort
}

// failed counts a failure, which ejects if it is the max-th in a row; negative max: never.
func (h *health) failed(c Cause, max int, t *trial) {
	h.mu.Lock()
	now := h.book.now()
	h.troubled.Store(true)
	if c == Reset {
		h.resets++
	} else {
		h.dials++
	}
	ejected := false
	switch until := h.until.Load(); {
	case until != 0 && t != nil && t == h.trial, until != 0 && h.trial == nil && now >= until:
		h.ejectLocked(c, now)
		ejected = true
	case until != 0: // a use that began before, or in spite of it: nothing new
	case max > 0 && (c == Refused || h.dials >= max || h.resets >= max):
		h.ejectLocked(c, now)
		ejected = true
	}
	anew, tryIn := h.ejections == 1, time.Duration(h.until.Load()-now)
	h.mu.Unlock()
	if !ejected {
		return
	}
	for _, t := range h.book.usersOf(h) {
		t.group.ejections.Add(1)
		t.group.review(t)
	}
	if anew {
		h.book.notify(h, HealthChange{Ejected: true, Cause: c, TryIn: tryIn})
	}
}

func (h *health) ejectLocked(c Cause, now int64) {
	d := min(minEjection<<min(h.ejections, 16), maxEjection)
	h.ejections++
	h.cause, h.trial = c, nil
	until := now + int64(float64(d)*(0.8+0.4*rand.Float64()))
	h.due.Store(until)
	h.until.Store(until)
}

// connected counts a connection that was taken.
func (h *health) connected(t *trial) {
	if !h.troubled.Load() {
		return
	}
	h.mu.Lock()
	h.dials = 0
	changed, returned := false, false
	switch {
	case h.until.Load() == 0 && h.resets > 0: // it may be about to do just that again
	case h.until.Load() != 0 && h.cause == Reset:
		if t != nil && t == h.trial {
			h.silentLocked(t)
			changed = true
		}
	default:
		returned = h.recoverLocked()
	}
	h.mu.Unlock()
	if changed || returned {
		h.book.tell(h, returned)
	}
}

func (h *health) silentLocked(t *trial) {
	t.silent = h.book.now()
	h.due.Store(t.silent + int64(trialSilence))
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
		h.book.tell(h, true)
	}
}

// recoverLocked forgets what was wrong, and tells whether the endpoint was ejected.
func (h *health) recoverLocked() bool {
	h.dials, h.resets, h.ejections, h.cause, h.trial = 0, 0, 0, 0, nil
	h.troubled.Store(false)
	if h.until.Load() == 0 {
		return false
	}
	h.returned.Store(h.book.now())
	h.until.Store(0)
	return true
}

// try begins a trial if it is time for one, and ends one that has been silent for long enough.
func (h *health) try(now int64) *trial {
	h.mu.Lock()
	until := h.until.Load()
	if until == 0 || now < h.due.Load() {
		h.mu.Unlock()
		return nil
	}
	var t *trial
	returned := false
	if h.trial != nil { // connected and silent, or it would not be due
		returned = h.recoverLocked()
	} else {
		t = &trial{}
		h.trial = t
		h.due.Store(math.MaxInt64)
		if h.address.network == UDP {
			h.silentLocked(t)
		}
	}
	h.mu.Unlock()
	h.book.tell(h, returned)
	return t
}

// trialDone ends a trial, if it is not over. Connected and without a failure, it was a success; else another one may
// try. Over UDP a refusal may be on its way yet, so there it takes its time.
func (h *health) trialDone(t *trial) {
	h.mu.Lock()
	if h.trial != t || h.address.network == UDP {
		h.mu.Unlock()
		return
	}
	returned := false
	if t.silent != 0 {
		returned = h.recoverLocked()
	} else {
		h.trial = nil
		h.due.Store(h.until.Load())
	}
	h.mu.Unlock()
	h.book.tell(h, returned)
}

// A book keeps the healths of all addresses.
type book struct {
	began   time.Time
	changed func(HealthChange) // nil: nobody wants to know

	mu      sync.Mutex
	healths map[address]*health
	// since when each has been without a user; it is remembered for a while, as Consul may put an instance back
	unused map[*health]int64
}

func newBook() *book {
	return &book{began: time.Now(), healths: map[address]*health{}, unused: map[*health]int64{}}
}

// now is the book's clock, in nanoseconds. It is never zero.
func (b *book) now() int64 { return int64(time.Since(b.began)) + 1 }

// use gives t the health of its address.
func (b *book) use(a address, t *tally) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.healths[a]
	if h == nil {
		h = &health{book: b, address: a}
		b.healths[a] = h
	}
	delete(b.unused, h)
	h.users = append(h.users, t)
	t.health = h
}

// release undoes a use.
func (b *book) release(t *tally) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := t.health
	h.users = slices.DeleteFunc(h.users, func(u *tally) bool { return u == t })
	switch {
	case len(h.users) > 0:
	case h.troubled.Load():
		b.unused[h] = b.now()
	default:
		delete(b.healths, h.address)
	}
}

// forget drops the healths that nobody has used for a while.
func (b *book) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	for h, since := range b.unused {
		if now > since+int64(2*maxEjection) {
			delete(b.unused, h)
			delete(b.healths, h.address)
		}
	}
}

// used reports whether g has a member at an address.
func (b *book) used(a address, g *group) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.healths[a]
	return h != nil && slices.ContainsFunc(h.users, func(t *tally) bool { return t.group == g })
}

// tell has all who use h look at it, and says that it is ejected no more, if it has returned.
func (b *book) tell(h *health, returned bool) {
	for _, t := range b.usersOf(h) {
		t.group.review(t)
	}
	if returned {
		b.notify(h, HealthChange{})
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
func (b *Balancer) NotifyHealth(f func(HealthChange)) { b.book.changed = f }

func (b *book) notify(h *health, c HealthChange) {
	if b.changed == nil {
		return
	}
	for _, t := range b.usersOf(h) {
		if t.group.options().MaxFails >= 0 {
			c.Service, c.Endpoint = t.group.name, t.id
			b.changed(c)
		}
	}
}

func (b *book) usersOf(h *health) []*tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(h.users)
}
