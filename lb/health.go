package lb

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// An endpoint stays ejected for minEjection the first time. The time doubles after each failed trial, up to
// maxEjection. Each time is jittered, so that not all Lictors of a fleet try an endpoint at the same moment.
const (
	minEjection = time.Second
	maxEjection = time.Minute
)

// A TCP endpoint that refuses connections is ejected for only quickEjection, up to quickEjections times in a row. The
// process of such an endpoint has ended, and usually a new process is about to start. A trial costs the client little:
// the endpoint refuses at once, and the client goes on to another endpoint. The first ejection after a Reset is quick
// too: a killed process first resets its connections, and then its address refuses new ones.
const (
	quickEjection  = 50 * time.Millisecond
	quickEjections = 20
)

// forgetEjections is how long an address must serve without an ejection until the next ejection takes minEjection
// again. forgetEjections is for addresses that have not answered.
const forgetEjections = 2 * maxEjection

// trialSilence is how long a trial must go on without a failure to count as a success. Some protocols give no better
// sign, because the endpoint need not send anything.
const trialSilence = time.Second

// A health is the knowledge of this Lictor about one address. All services with endpoints at the address share it.
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
// The cause of the ejection decides what counts as reached. After Refused and Unreachable, an accepted connection is
// enough. After Reset, the endpoint must send something, or keep the connection open for trialSilence.
//
// Over UDP, only an answer proves that the endpoint is well. A trial that is silent for trialSilence also ends the
// ejection, but the health keeps the number of ejections, so the next ejection takes twice as long. While an active
// check fails, silence does not end the ejection, see checks.
//
// Picks read only the atomic fields. For an endpoint without failures, each method costs one atomic load.
type health struct {
	registry *healthRegistry
	address  address

	troubled     atomic.Bool   // the address has failed since it was last reached
	marked       atomic.Bool   // reached and connected have something to forget; always set while troubled is set
	ejectedUntil atomicInstant // when the address may be tried; 0: it is not ejected
	due          atomicInstant // if ejected: when a pick should look at the address again
	returnedAt   atomicInstant // when the last ejection ended; 0: never ejected

	mu           sync.Mutex // guards the following fields
	dialFailures int        // failures in a row, without resets
	resets       int        // resets in a row
	quick        int        // ejections in a row that took quickEjection
	ejections    int        // other ejections in a row
	cause        Cause
	why          string    // about the last failure, if it was a TLS handshake, see whyOf; shown only
	trial        *trialUse // nil: no use tries the address
	checks       checks

	users []*usage // users of the address; guarded by registry.mu
}

// A trialUse is a use that tries an ejected endpoint.
type trialUse struct {
	silentSince instant // when the trial connected; 0: not connected; guarded by health.mu
}

// An address is the place of an endpoint on a network.
type address struct {
	network Network
	place   Place
}

// failed counts a failure of a use. If the use is a trial, trial is not nil. If maxFails is positive, maxFails failures
// in a row eject the address. why comes from whyOf.
func (h *health) failed(c Cause, why string, maxFails int, trial *trialUse) {
	h.mu.Lock()
	now := h.registry.clock.now()
	h.countLocked(c, why)
	eject := false
	if until := h.ejectedUntil.Load(); until == 0 {
		eject = h.exceedsLocked(c, maxFails)
	} else { // uses that began before the ejection, or ignored it, change nothing
		eject = trial != nil && trial == h.trial || h.trial == nil && now >= until
	}
	if !eject {
		h.mu.Unlock()
		return
	}
	h.ejectAndUnlock(c, now)
}

// countLocked counts a failure. why comes from whyOf.
func (h *health) countLocked(c Cause, why string) {
	h.why = why
	h.troubled.Store(true)
	h.marked.Store(true)
	if c == Reset {
		h.resets++
	} else {
		h.dialFailures++
	}
}

// exceedsLocked reports whether the failures in a row eject the address. c is the cause of the last failure.
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

// quickLocked reports whether the next ejection takes quickEjection.
func (h *health) quickLocked(c Cause) bool {
	switch {
	case h.address.network != TCP || h.ejections > 0:
		return false
	case c == Reset: // a trial costs a client its connection, unless the endpoint refuses by then
		return h.quick == 0
	}
	return c == Refused && h.quick < quickEjections
}

// nextTrialLocked returns when the next use may try the address. While active checks fail, it returns distantFuture,
// because the checks try the address.
func (h *health) nextTrialLocked() instant {
	if h.checks.decide() {
		return distantFuture
	}
	return h.ejectedUntil.Load()
}

// connected counts a connection that the endpoint accepted. If the use is a trial, trial is not nil.
func (h *health) connected(trial *trialUse) {
	if !h.marked.Load() {
		return
	}
	h.mu.Lock()
	h.dialFailures, h.why = 0, ""
	changed, returned := false, false
	switch {
	case h.ejectedUntil.Load() == 0 && h.resets > 0: // the endpoint may be about to reset this connection too
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

// accepted counts a connection that the endpoint accepted, but may still deny. If the use is a trial, trial is not nil.
func (h *health) accepted(trial *trialUse) {
	if trial == nil {
		return
	}
	h.mu.Lock()
	begins := h.trial == trial
	if begins {
		h.startSilenceLocked(trial)
	}
	h.mu.Unlock()
	if begins {
		h.registry.reviewUsers(h, false)
	}
}

// undecided ends a trial that shows neither that the endpoint is well nor that it fails. Another use may try the
// endpoint.
func (h *health) undecided(trial *trialUse) {
	if trial == nil {
		return
	}
	h.mu.Lock()
	ends := h.trial == trial
	if ends {
		h.trial = nil
		h.due.Store(h.nextTrialLocked())
	}
	h.mu.Unlock()
	if ends {
		h.registry.reviewUsers(h, false)
	}
}

func (h *health) startSilenceLocked(trial *trialUse) {
	trial.silentSince = h.registry.clock.now()
	h.due.Store(trial.silentSince.add(trialSilence))
}

// reached records that the endpoint sent something.
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

// recoverLocked forgets all failures and ejections. recoverLocked reports whether the address was ejected.
func (h *health) recoverLocked() bool {
	h.quick, h.ejections = 0, 0
	h.checks.failed = false
	h.marked.Store(false)
	return h.returnLocked()
}

// returnLocked forgets all failures, but keeps the number of ejections. returnLocked is for an endpoint that seems
// well, but has not answered. returnLocked reports whether the address was ejected.
func (h *health) returnLocked() bool {
	h.dialFailures, h.resets, h.cause, h.why, h.trial = 0, 0, 0, "", nil
	h.troubled.Store(false)
	if h.ejectedUntil.Load() == 0 {
		return false
	}
	h.returnedAt.Store(h.registry.clock.now())
	h.ejectedUntil.Store(0)
	return true
}

// beginTrial begins a trial and returns it, if the address is due for one. If a trial has been silent for trialSilence,
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
	case h.trial != nil && h.address.network == UDP: // the trial was silent: otherwise the address would not be due
		returned = h.returnLocked()
	case h.trial != nil: // the trial is connected and silent
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

// isTrial reports whether trial is in progress.
func (h *health) isTrial(trial *trialUse) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trial == trial
}

// endTrial ends the trial of a use that is over, unless the trial has already ended. If the trial connected and did not
// fail, it was a success. Otherwise another use may try the endpoint. Over UDP, endTrial does nothing, because a
// refusal may still be on its way.
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
