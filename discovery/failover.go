package discovery

import (
	"fmt"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// This file decides which tier of a service is used. It is pure.

// A standing is what counts of a tier when one is chosen.
type standing struct {
	known     bool // there is a set
	available int  // endpoints that are not held and can be used
	usable    int  // endpoints that can be used, with those that are held
	failing   int  // of usable; 0 if Failover.OnHealth is off
}

// failed reports whether all endpoints of the tier fail.
func (t standing) failed() bool { return t.usable > 0 && t.failing >= t.usable }

// good reports whether a tier is one to stay in.
func (f Failover) good(t standing) bool { return t.known && t.available >= f.Below && !t.failed() }

// choose returns the tier to use, without regard to waiting: the first good one, else the first with any endpoint that
// does not fail. If all endpoints of all tiers fail, that is no reason to prefer one: it is the first with
// enough endpoints, else the first with any, else the first with a set, even if that is empty. It returns -1 if no tier
// has a set.
func (f Failover) choose(tiers []standing) int {
	for _, fits := range []func(standing) bool{
		f.good,
		func(t standing) bool { return t.known && t.available > 0 && !t.failed() },
		func(t standing) bool { return t.known && t.available >= f.Below },
		func(t standing) bool { return t.known && t.available > 0 },
		func(t standing) bool { return t.known },
	} {
		if i := slices.IndexFunc(tiers, fits); i >= 0 {
			return i
		}
	}
	return -1
}

// shortfall says what is wrong with a tier; empty: it is good.
func (f Failover) shortfall(name string, t standing) string {
	switch {
	case f.good(t):
		return ""
	case !t.known:
		return name + " has not answered yet"
	case t.failed() && t.usable == 1:
		return "the only endpoint of " + name + " fails from here"
	case t.failed():
		return fmt.Sprintf("all %d endpoints of %s fail from here", t.usable, name)
	}
	return fmt.Sprintf("%s has too few endpoints: %d, and failover_below is %d", name, t.available, f.Below)
}

// A TierUse says whether a service uses a tier, and why.
type TierUse struct {
	Name   string
	Active bool

	// Detail says why the tier is not used, or why the service uses a tier that is not the first. It is empty if there
	// is nothing to say.
	Detail string
}

// Tiers returns the tiers of a service that has several, in order of preference. It returns nil for other services.
func (c *Consul) Tiers(service string) []TierUse {
	v, ok := c.byService.Load(service)
	if !ok {
		return nil
	}
	s := v.(*selector)
	if len(s.tiers) < 2 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]TierUse, len(s.tiers))
	for i, t := range s.tiers {
		all[i] = TierUse{Name: t.name, Active: i == s.active, Detail: s.failover.shortfall(t.name, t.standing)}
		switch {
		case i == s.active && i > 0:
			all[i].Detail = s.why
		case i < s.active && all[i].Detail == "" && !s.better.IsZero():
			again := s.better.Add(s.failover.Hold)
			all[i].Detail = "it is good again, and in use from " + again.Format(time.TimeOnly) + " if it stays so"
		}
	}
	return all
}

// HealthChanged says that an endpoint of a service fails from here, or does so no longer. It waits for nothing, so it
// may be called while an endpoint is used.
func (c *Consul) HealthChanged(service string) {
	v, ok := c.byService.Load(service)
	if !ok {
		return
	}
	s := v.(*selector)
	if s.failover.OnHealth && len(s.tiers) > 1 && !s.nudged.Swap(true) {
		time.AfterFunc(0, s.lookAgain)
	}
}

// lookAgain is look after HealthChanged.
func (s *selector) lookAgain() {
	s.nudged.Store(false) // first: what changes from here on may not be seen
	s.look()
}

// usableLocked returns the endpoints of a tier that can be used.
func (s *selector) usableLocked(t *tier) []lb.Endpoint {
	usable := s.consul.options.Usable
	if usable == nil {
		return t.set
	}
	var some []lb.Endpoint
	for _, e := range t.set {
		if usable(s.service, e) {
			some = append(some, e)
		}
	}
	return some
}

// standByLocked passes on the endpoints of tiers that are not in use because their endpoints failed. Without
// checks it would not become known that they can be used again. They are checked until the service uses their tier.
func (s *selector) standByLocked() {
	if s.consul.options.OnStandby == nil || s.closed || s.begun.IsZero() {
		return
	}
	var all []lb.Endpoint
	for i, t := range s.tiers {
		switch {
		case i == s.active || !s.failover.OnHealth:
			t.distrusted = false
		case t.failed(): // of one tier, it is not counted
			t.distrusted = true
		}
		if t.distrusted {
			all = append(all, s.usableLocked(t)...)
		}
	}
	if slices.Equal(all, s.standby) && (s.toldStandby || s.active < 0) {
		return
	}
	s.standby, s.toldStandby = all, true
	s.consul.options.OnStandby(s.service, slices.Clone(all))
}

// standingBy returns what OnStandby was told last.
func (s *selector) standingBy() []lb.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.standby
}
