package lb

// checks is the state of the active checks of a UDP address. While checks are running and the last one has failed, only
// checks try the address. Silence after a client's datagram proves nothing: the server may hang, or may not need to
// answer. health.mu guards checks.
type checks struct {
	running int  // number of endpoints at the address that are being checked
	failed  bool // a check has failed since the address last answered
}

// decide reports whether only an answer to a check ends an ejection.
func (c checks) decide() bool { return c.running > 0 && c.failed }

// beginChecks notes that an endpoint at the address is being checked. Call endChecks when the checks end.
func (h *health) beginChecks() { h.countChecks(1) }

// endChecks undoes beginChecks.
func (h *health) endChecks() { h.countChecks(-1) }

func (h *health) countChecks(change int) {
	if h.address.network != UDP {
		return
	}
	h.mu.Lock()
	before := h.checks.decide()
	h.checks.running += change
	if h.checks.running == 0 {
		h.checks.failed = false
	}
	changed := h.checks.decide() != before && h.ejectedUntil.Load() != 0
	if changed {
		h.trial = nil
		h.due.Store(h.nextTrialLocked())
	}
	h.mu.Unlock()
	if changed {
		h.registry.reviewUsers(h, false)
	}
}

// checkFailed reports a failed active check; it takes the place of FailedWith. Over UDP, checkFailed also ends a trial
// in progress, because a check gives a better answer than a trial. A check that fails after the ejection's time is over
// counts as a failed trial.
func (m *Member) checkFailed(c Cause, why error) {
	h := m.health
	if h.address.network != UDP {
		m.FailedWith(c, why)
		return
	}
	m.failed.Add(1)
	h.mu.Lock()
	now := h.registry.clock.now()
	h.countLocked(c, "")
	h.checks.failed = true
	until := h.ejectedUntil.Load()
	if until == 0 && h.exceedsLocked(c, m.group.options().maxFails()) || until != 0 && now >= until {
		h.ejectAndUnlock(c, now)
		return
	}
	h.trial = nil
	h.due.Store(h.nextTrialLocked())
	h.mu.Unlock()
	h.registry.reviewUsers(h, false)
}

// returnSilently ends an ejection after its time, unless the address must first answer a check. returnSilently is for
// addresses that no client tries.
func (h *health) returnSilently() {
	h.mu.Lock()
	until := h.ejectedUntil.Load()
	returned := until != 0 && until <= h.registry.clock.now() && !h.checks.decide() && h.returnLocked()
	h.mu.Unlock()
	if returned {
		h.registry.reviewUsers(h, true)
	}
}
