package lb

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// An endpoint stays ejected for minEjection the first time, and twice as long after each failed trial, up to
// maxEjection. Each time is jittered, so that the Lictors of a fleet do not all try an endpoint at the same moment.
const (
	minEjection = time.Second
	maxEjection = time.Minute
)

// A TCP endpoint that refuses stays ejected for quickEjection the first quickEjections times in a row. Its process has
// ended, and as a rule another one is about to start. A trial costs its client next to nothing: the endpoint refuses at
// once, and the client goes on to another one. The first time, that is so after Reset too: a process that is killed
// resets its connections, and refuses then.
const (
	quickEjection  = 50 * time.Millisecond
	quickEjections = 20
)

// forgetEjections is how long an address must serve without being ejected for its next ejection to take minEjection
// again, though it has not answered.
const forgetEjections = 2 * maxEjection

// trialSilence is how long a trial must go on without a failure to count as a success. Protocols in which the endpoint
// need not send anything give no better sign.
const trialSilence = time.Second

// A health is what is known on this host about one address. All services with endpoints there share it.
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
// What counts as reached depends on the cause of the ejection. After Refused and Unreachable it is enough that the
// endpoint accepts a connection. After Reset it must send something, or keep the connection for trialSilence.
//
// Over UDP only an answer shows that the endpoint is well. A trial that is silent for trialSilence ends the ejection
// too, but the number of ejections is kept: the next one takes twice as long. While a check fails, silence does not end
// the ejection, see checks.
//
// Picks read the atomics only. For an endpoint without failures, the methods cost one atomic load.
type health struct {
	registry *healthRegistry
	address  address

	troubled     atomic.Bool   // it has failed since it was last reached
	marked       atomic.Bool   // reached and connected have something to forget; set while troubled is
	ejectedUntil atomicInstant // when it may be tried; 0: it is not ejected
	due          atomicInstant // if ejected: when a pick should look at it again
	returnedAt   atomicInstant // when its last ejection ended; 0: it never was ejected

	mu           sync.Mutex // guards the following
	dialFailures int        // in a row, resets not counted
	resets       int        // in a row
	quick        int        // ejections in a row that took quickEjection
	ejections    int        // in a row, without those
	cause        Cause
	trial        *trialUse // nil: no use tries it
	checks       checks

	users []*usage // of the members at the address; guarded by registry.mu
}

// A trialUse is a use that tries an ejected endpoint.
type trialUse struct {
	silentSince instant // when it connected; 0: it is not connected; guarded by health.mu
}

// An address is where an endpoint is, and over which network.
type address struct {
	network Network
	host    string
	addr    netip.AddrPort
}

// failed counts a failure of a use. trial is not nil if the use is a trial. maxFails failures in a row eject the
// address, if maxFails is positive.
func (h *health) failed(c Cause, maxFails int, trial *trialUse) {
	h.mu.Lock()
	now := h.registry.clock.now()
	h.countLocked(c)
	eject := false
	if until := h.ejectedUntil.Load(); until == 0 {
		eject = h.exceedsLocked(c, maxFails)
	} else { // other uses began before the ejection, or ignored it: nothing new
		eject = trial != nil && trial == h.trial || h.trial == nil && now >= until
	}
	if !eject {
		h.mu.Unlock()
		return
	}
	h.ejectAndUnlock(c, now)
}

// countLocked counts a failure.
func (h *health) countLocked(c Cause) {
	h.troubled.Store(true)
	h.marked.Store(true)
	if c == Reset {
		h.resets++
	} else {
		h.dialFailures++
	}
}

// exceedsLocked reports whether the failures in a row, of which c is the last, eject the address.
func (h *health) exceedsLocked(c Cause, maxFails int) bool {
	return maxFails > 0 && (c == Refused || h.dialFailures >= maxFails || h.resets >= maxFails)
}

// ejectAndUnlock ejects the address, unlocks h, and notifies the users.
func (h *health) ejectAndUnlock(c Cause, now instant) {
	first := h.ejectedUntil.Load() == 0
	h.ejectLocked(c, now)
	tryIn := h.ejectedUntil.Load().sub(now)
	h.mu.Unlock()
	for _, u := range h.registry.usersOf(h) {
		if !u.standby {
			u.group.ejections.Add(1)
		}
		u.group.review(u)
	}
	if first {
		h.registry.notifyUsers(h, HealthChange{Ejected: true, Cause: c, TryIn: tryIn})
	}
}

func (h *health) ejectLocked(c Cause, now instant) {
	if since := h.returnedAt.Load(); h.ejectedUntil.Load() == 0 && since != 0 && now.sub(since) > forgetEjections {
		h.quick, h.ejections = 0, 0
	}
	d := quickEjection
	if h.quickLocked(c) {
		h.quick++
	} else {
		d = min(minEjection<<min(h.ejections, 16), maxEjection)
		h.ejections++
	}
	h.cause, h.trial = c, nil
	until := now.add(time.Duration(float64(d) * (0.8 + 0.4*rand.Float64())))
	h.ejectedUntil.Store(until)
	h.due.Store(h.nextTrialLocked())
}

// quickLocked reports whether the next ejection is to take quickEjection.
func (h *health) quickLocked(c Cause) bool {
	switch {
	case h.address.network != TCP || h.ejections > 0:
		return false
	case c == Reset: // a trial costs a client its connection, unless the endpoint refuses by then
		return h.quick == 0
	}
	return c == Refused && h.quick < quickEjections
}

// nextTrialLocked returns when a use may try the address if none does: distantFuture while its checks fail, because
// they try it.
func (h *health) nextTrialLocked() instant {
	if h.checks.decide() {
		return distantFuture
	}
	return h.ejectedUntil.Load()
}

// connected counts a connection that the endpoint accepted. trial is not nil if its use is a trial.
func (h *health) connected(trial *trialUse) {
	if !h.marked.Load() {
		return
	}
	h.mu.Lock()
	h.dialFailures = 0
	changed, returned := false, false
	switch {
	case h.ejectedUntil.Load() == 0 && h.resets > 0: // it may be about to reset this connection too
	case h.ejectedUntil.Load() != 0 && h.cause == Reset:
		if trial != nil && trial == h.trial {
			h.startSilenceLocked(trial)
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

func (h *health) startSilenceLocked(trial *trialUse) {
	trial.silentSince = h.registry.clock.now()
	h.due.Store(trial.silentSince.add(trialSilence))
}

// reached counts something that the endpoint sent.
func (h *health) reached() {
	if !h.marked.Load() {
		return
	}
	h.mu.Lock()
	returned := h.recoverLocked()
	h.mu.Unlock()
	if returned {
		h.registry.reviewUsers(h, true)
	}
}

// recoverLocked forgets all failures. It reports whether the address was ejected.
func (h *health) recoverLocked() bool {
	h.quick, h.ejections = 0, 0
	h.checks.failed = false
	h.marked.Store(false)
	return h.returnLocked()
}

// returnLocked forgets all failures but the number of ejections: nothing contradicts that the endpoint is well, but it
// has not answered. It reports whether the address was ejected.
func (h *health) returnLocked() bool {
	h.dialFailures, h.resets, h.cause, h.trial = 0, 0, 0, nil
	h.troubled.Store(false)
	if h.ejectedUntil.Load() == 0 {
		return false
	}
	h.returnedAt.Store(h.registry.clock.now())
	h.ejectedUntil.Store(0)
	return true
}

// beginTrial begins a trial and returns it, if the address is due for one. If a trial has been silent for long enough,
// beginTrial ends the ejection instead, and returns nil.
func (h *health) beginTrial(now instant) *trialUse {
	h.mu.Lock()
	until := h.ejectedUntil.Load()
	if until == 0 || now < h.due.Load() {
		h.mu.Unlock()
		return nil
	}
	var trial *trialUse
	returned := false
	switch {
	case h.trial != nil && h.address.network == UDP: // silent: otherwise the address would not be due
		returned = h.returnLocked()
	case h.trial != nil: // connected and silent
		returned = h.recoverLocked()
	default:
		trial = &trialUse{}
		h.trial = trial
		h.due.Store(distantFuture)
		if h.address.network == UDP {
			h.startSilenceLocked(trial)
		}
	}
	h.mu.Unlock()
	h.registry.reviewUsers(h, returned)
	return trial
}

// isTrial reports whether trial is under way.
func (h *health) isTrial(trial *trialUse) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trial == trial
}

// endTrial ends a trial whose use is over, unless the trial has ended already. If it connected and did not fail, it was
// a success. Otherwise another use may try. Over UDP the trial goes on instead: a refusal may still be on its way.
func (h *health) endTrial(trial *trialUse) {
	h.mu.Lock()
	if h.trial != trial || h.address.network == UDP {
		h.mu.Unlock()
		return
	}
	returned := false
	if trial.silentSince != 0 {
		returned = h.recoverLocked()
	} else {
		h.trial = nil
		h.due.Store(h.nextTrialLocked())
	}
	h.mu.Unlock()
	h.registry.reviewUsers(h, returned)
}
