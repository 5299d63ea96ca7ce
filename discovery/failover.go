package discovery

import (
	"fmt"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// This file decides which tier of a service is used. The code in this file is pure.

// A standing holds the values by which a tier is chosen.
type standing struct {
	known     bool // the tier has a set
	available int  // usable endpoints that are not held
	usable    int  // usable endpoints, with held ones
	failing   int  // usable endpoints that fail; 0 if Failover.OnHealth is off
}

// failed reports whether all usable endpoints of the tier fail.
func (t standing) failed() bool { return t.usable > 0 && t.failing >= t.usable }

// good reports whether a service may stay in the tier.
func (f Failover) good(t standing) bool { return t.known && t.available >= f.Below && !t.failed() }

// choose returns the index of the tier to use, without regard to Failover.Hold. choose prefers the first good tier, and
// then the first tier that has an available endpoint and in which not all endpoints fail. If all endpoints of all tiers
// fail, failures do not count: choose returns the first tier with enough endpoints, then the first with any, then the
// first with a set, even an empty one. choose returns -1 if no tier has a set.
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

// shortfall returns what is wrong with a tier; empty: the tier is good.
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

	// Detail says why the tier is not used, or why the service uses a tier that is not the first. Detail is empty for
	// the first tier if it is in use.
	Detail string
}

// Tiers returns the tiers of a service with several tiers, in order of preference. The targets of its discovery chain
// that are left out follow, and count as tiers that are not used. Tiers returns nil for other services.
func (c *Consul) Tiers(service string) []TierUse {
	v, ok := c.byService.Load(service)
	if !ok {
		return nil
	}
	s := v.(*selector)
	c.mu.Lock()
	var left []LeftOut
	if f := c.following[service]; f != nil {
		left = f.left
	}
	c.mu.Unlock()
	if len(s.tiers)+len(left) < 2 {
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
	for _, one := range left {
		all = append(all, TierUse{Name: one.Name, Detail: "left out: it " + one.Reason})
	}
	return all
}

// HealthChanged reports to the Consul that an endpoint of a service has begun or stopped to fail from this host.
// HealthChanged does not wait, so it may be called while a client is served.
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

// lookAgain calls look after HealthChanged.
func (s *selector) lookAgain() {
	s.nudged.Store(false) // first, because look may miss changes from here on
	s.look()
}

// usableLocked returns the usable endpoints of a tier.
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

// standByLocked passes the standby endpoints to OnStandby. Standby endpoints belong to tiers that are not in use
// because their endpoints failed. Without checks, Lictor would not learn that these endpoints can be used again.
// Endpoints stay on standby until the service uses their tier.
func (s *selector) standByLocked() {
	if s.consul.options.OnStandby == nil || s.closed || s.begun.IsZero() {
		return
	}
	var all []lb.Endpoint
	for i, t := range s.tiers {
		switch {
		case i == s.active || !s.failover.OnHealth:
			t.distrusted = false
		case t.failed(): // a single tier's failures are not counted
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

// standingBy returns the last endpoints passed to OnStandby.
func (s *selector) standingBy() []lb.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.standby
}
