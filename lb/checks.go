package lb

// checks is what is known of the active checks of a UDP address. While there are some, and the last of them has failed,
// they alone try the address: a server that hangs is as silent to a client's datagram as one that need not answer.
// health.mu guards it.
type checks struct {
	running int  // endpoints at the address that are being checked
	failed  bool // a check has failed since the address last answered
}

// decide reports whether only an answer ends an ejection.
func (c checks) decide() bool { return c.running > 0 && c.failed }

// beginChecks notes that a check of the address begins. endChecks must be called when it has ended.
func (h *health) beginChecks() { h.countChecks(1) }

// endChecks notes that a check of the address has ended.
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

// checkFailed is Failed for the result of an active check. Over UDP it ends a trial, which cannot know better. A check
// needs no trial of its own: it is one if the ejection's time is over.
func (m *Member) checkFailed(c Cause) {
	h := m.health
	if h.address.network != UDP {
		m.Failed(c)
		return
	}
	m.failed.Add(1)
	h.mu.Lock()
	now := h.registry.clock.now()
	h.countLocked(c)
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

// returnSilently ends an ejection whose time is over, unless the address must answer a check. It is for an address that
// no client tries.
func (h *health) returnSilently() {
	h.mu.Lock()
	until := h.ejectedUntil.Load()
	returned := until != 0 && until <= h.registry.clock.now() && !h.checks.decide() && h.returnLocked()
	h.mu.Unlock()
	if returned {
		h.registry.reviewUsers(h, true)
	}
}
