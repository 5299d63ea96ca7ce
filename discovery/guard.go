package discovery

import (
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A Guard says how much a set may shrink at once without doubt, and how long lost endpoints then stay in the set.
//
// Healthy instances vanish mostly in large numbers: during an election, after a restart of the agent, or when a check
// depends on something shared. Operators remove instances one by one. A loss is sharp if the set becomes empty, or if
// more than MaxDrop of three or more endpoints are lost.
//
// After a sharp loss, Lictor asks Consul's leader. If the leader confirms the loss, new instances join the set at once,
// and the lost endpoints are held: they stay in the set for a while. HoldReason says for how long an endpoint is held.
// Lictor does not hold instances that the operator has removed on purpose:
//
//   - an instance in maintenance;
//   - an instance that is registered, but no longer matches the query's tags or filter;
//   - an instance with the address of another registered instance.
//
// All holds of a set end when as many new endpoints have joined as are held. When the instances of a service move to
// new addresses, the service therefore does not use old and new addresses at the same time.
type Guard struct {
	// MaxDrop is a percentage of the set. A zero MaxDrop means 50 percent. If MaxDrop is negative, each loss from a set
	// of three or more endpoints is sharp. If MaxDrop is 100, only an empty set is a sharp loss.
	MaxDrop int

	// Hold is how long deregistered endpoints stay in the set. A zero Hold means 10 seconds. If Hold is negative,
	// deregistered endpoints leave as soon as the leader has confirmed the loss.
	Hold time.Duration

	// HoldMax is how long other lost endpoints stay in the set, as long as probes reach them. If they cannot be probed,
	// they stay for Hold at most.
	HoldMax HoldMax
}

// HoldMax is the longest time for which lost endpoints are held, for each HoldReason. A zero time means one minute. If
// a time is negative, the endpoints leave as soon as the leader has confirmed the loss.
type HoldMax struct{ Critical, Forgotten time.Duration }

const (
	defaultMaxDrop = 50
	defaultHold    = 10 * time.Second
	defaultHoldMax = time.Minute

	guardedSet = 3 // MaxDrop applies to sets of at least this size
)

// withDefaults returns g with defaults in place of zeros, and zeros in place of negative values.
func (g Guard) withDefaults() Guard {
	orDefault := func(d, def time.Duration) time.Duration {
		if d == 0 {
			return def
		}
		return max(d, 0)
	}
	if g.MaxDrop == 0 {
		g.MaxDrop = defaultMaxDrop
	}
	return Guard{max(g.MaxDrop, 0), orDefault(g.Hold, defaultHold), HoldMax{
		Critical:  orDefault(g.HoldMax.Critical, defaultHoldMax),
		Forgotten: orDefault(g.HoldMax.Forgotten, defaultHoldMax),
	}}
}

// longest returns how long an endpoint may be held for the reason why. probed says that the endpoint can be probed.
func (g Guard) longest(why HoldReason, probed bool) time.Duration {
	longest := g.Hold
	switch why {
	case HoldCritical:
		longest = g.HoldMax.Critical
	case HoldForgotten:
		longest = g.HoldMax.Forgotten
	}
	if !probed {
		longest = min(longest, g.Hold)
	}
	return longest
}

// resume returns the holds of an earlier process, which has saved by the wall clock when they end. Here they end by the
// monotonic clock, and none lasts longer than a new hold would. So a step of the wall clock cannot prolong a hold.
func (g Guard) resume(held map[string]hold) map[string]hold {
	now := time.Now()
	resumed := make(map[string]hold, len(held))
	for id, h := range held {
		h.until = now.Add(min(h.until.Sub(now), g.longest(h.why, true)))
		resumed[id] = h
	}
	return resumed
}

// hold returns the belief that follows from the answer in e, with the set and its held, hidden and joined endpoints.
// hold returns false if the leader must first confirm the answer.
func (g Guard) hold(was belief, e *evidence) (b belief, ok bool) {
	lost, hidden, sharp := g.loss(&was, e)
	if sharp && !e.asked.leader && len(was.freshOf(lost, hidden)) > 0 {
		return was, false
	}
	b = belief{
		set: slices.Clone(e.in.endpoints), held: map[string]hold{}, hidden: hidden, joined: was.joinedBy(e.in),
	}
	taken := placesOf(e.in.all)
	for _, one := range lost {
		if hidden[one.ID] {
			continue
		}
		h, heldBefore := was.held[one.ID]
		why, worthIt := e.whyLost(&was, one)
		if by, is := taken[one.Place()]; is && by != one.ID {
			worthIt = false // another instance has the address, even if its status does not count
		}
		switch {
		case !worthIt, !heldBefore && !sharp:
			continue
		case !heldBefore, h.why == HoldForgotten && why == HoldCritical && worthIt:
			// A forgotten instance that is registered again must pass its check first, so it gets time for that.
			h = hold{why: why, until: e.now.Add(g.longest(why, e.probed))}
		}
		if h.until.After(e.now) && !e.unreachable[one.ID] {
			b.held[one.ID] = h
		}
	}
	if len(b.joined) >= len(b.held) {
		b.held, b.joined = map[string]hold{}, nil
	}
	for _, one := range lost {
		if _, held := b.held[one.ID]; held || b.hidden[one.ID] {
			b.set = append(b.set, one)
		}
	}
	slices.SortFunc(b.set, func(a, b lb.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return b, true
}

// loss returns the endpoints of the set of was that the answer in e does not contain, and whether their loss is sharp.
// Hidden endpoints do not count towards a sharp loss.
func (g Guard) loss(was *belief, e *evidence) (lost []lb.Endpoint, hidden map[string]bool, sharp bool) {
	lost, hidden = e.lostOf(was), was.hiddenFrom(e)
	return lost, hidden, g.sharp(len(was.set), len(lost)-len(hidden), len(e.in.endpoints)+len(hidden))
}

// sharp reports whether a loss is sharp. before is the size of the old set, lost the number of lost endpoints, and now
// the size of the new set.
func (g Guard) sharp(before, lost, now int) bool {
	return now == 0 || before >= guardedSet && 100*lost > g.MaxDrop*before
}

// placesOf returns the ID of the instance at each place. The ID is empty if several instances are at the place.
func placesOf(all []Instance) map[lb.Place]string {
	places := make(map[lb.Place]string, len(all))
	for i := range all {
		at, id := all[i].Endpoint.Place(), all[i].ID
		if _, several := places[at]; several {
			id = ""
		}
		places[at] = id
	}
	return places
}

// lostFrom returns the endpoints of set that the answer does not contain, either under the same ID or at the same
// address. Endpoints in maintenance are left out.
func lostFrom(set []lb.Endpoint, in instances) []lb.Endpoint {
	if slices.Equal(set, in.endpoints) {
		return nil
	}
	here := make(map[string]bool, len(in.endpoints))
	addresses := make(map[lb.Place]bool, len(in.endpoints))
	for _, e := range in.endpoints {
		here[e.ID], addresses[e.Place()] = true, true
	}
	for _, one := range in.all {
		if one.Out == OutMaintenance {
			here[one.ID] = true
		}
	}
	var lost []lb.Endpoint
	for _, e := range set {
		if !here[e.ID] && !addresses[e.Place()] {
			lost = append(lost, e)
		}
	}
	return lost
}
