package discovery

import (
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A Guard says how far a set may shrink at once before Lictor doubts it, and how long lost endpoints then stay.
//
// Instances that live vanish most often many or all at once: during an election, after a restart of the agent, or
// when a check depends on something shared. Operators remove one at a time. So a loss is sharp if nothing is left,
// or if more than MaxDrop of three or more endpoints are gone. After a sharp loss Lictor asks the leader. If the
// leader confirms it, new instances are taken in at once, and the lost ones are held: they stay in the set for a
// while. How long depends on why Consul does not count them any more, see HoldReason. Of these the operator has
// disposed, so they are not held:
//
//   - an instance in maintenance;
//   - an instance that is registered, but does not match the query's tags or filter any more;
//   - an instance at whose address another one is registered.
//
// All holds of a set end when as many new endpoints have come into it as are held. So a service whose instances move
// is not served from their old and their new places at once.
type Guard struct {
	// MaxDrop is in percent of a set. Zero means 50. With a negative value each loss of three or more endpoints is
	// sharp, with 100 an empty set only.
	MaxDrop int

	// Hold is how long endpoints stay that were deregistered. Zero means 10 seconds. With a negative value they go as
	// soon as the leader has confirmed the loss.
	Hold time.Duration

	// HoldMax is how long other lost endpoints stay, as long as they can be reached from here. If they cannot be
	// probed, they stay for Hold at most.
	HoldMax HoldMax
}

// HoldMax is the longest time that lost endpoints stay, for each reason. Zero means one minute. With a negative value
// they go as soon as the leader has confirmed the loss.
type HoldMax struct{ Critical, Forgotten time.Duration }

const (
	defaultMaxDrop = 50
	defaultHold    = 10 * time.Second
	defaultHoldMax = time.Minute

	guardedSet = 3 // MaxDrop counts for sets of so many endpoints and more
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

// longest returns how long an endpoint may be held for a reason.
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

// hold returns the belief that follows from the answer in e: its set, what is held or hidden, and what has joined. It
// returns false if the leader has to confirm the answer first.
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
		if by, is := taken[placeOf(one)]; is && by != one.ID {
			worthIt = false // another instance is there, though it does not count
		}
		switch {
		case !worthIt, !heldBefore && !sharp:
			continue
		case !heldBefore, h.why == HoldForgotten && why == HoldCritical && worthIt:
			// What was forgotten and is registered again has a check to pass, so it gets the time for that.
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

// loss returns the endpoints of a belief's set that the answer in e does not come to, and whether that is a sharp loss.
// Those of them that are hidden do not count for it.
func (g Guard) loss(was *belief, e *evidence) (lost []lb.Endpoint, hidden map[string]bool, sharp bool) {
	lost, hidden = e.lostOf(was), was.hiddenFrom(e)
	return lost, hidden, g.sharp(len(was.set), len(lost)-len(hidden), len(e.in.endpoints)+len(hidden))
}

// sharp reports whether to lose so many endpoints of a set, with so many in the new one, is a sharp loss.
func (g Guard) sharp(before, lost, now int) bool {
	return now == 0 || before >= guardedSet && 100*lost > g.MaxDrop*before
}

// placesOf returns the ID of the instance at each place; it is empty where there are several.
func placesOf(all []Instance) map[place]string {
	places := make(map[place]string, len(all))
	for i := range all {
		at, id := placeOf(all[i].Endpoint), all[i].ID
		if _, several := places[at]; several {
			id = ""
		}
		places[at] = id
	}
	return places
}

// lostFrom returns the endpoints of a set that an answer does not come to, neither under their ID nor under another
// ID at the same address. Endpoints in maintenance are not among them.
func lostFrom(set []lb.Endpoint, in instances) []lb.Endpoint {
	if slices.Equal(set, in.endpoints) {
		return nil
	}
	here := make(map[string]bool, len(in.endpoints))
	addresses := make(map[place]bool, len(in.endpoints))
	for _, e := range in.endpoints {
		here[e.ID], addresses[placeOf(e)] = true, true
	}
	for _, one := range in.all {
		if one.Out == OutMaintenance {
			here[one.ID] = true
		}
	}
	var lost []lb.Endpoint
	for _, e := range set {
		if !here[e.ID] && !addresses[placeOf(e)] {
			lost = append(lost, e)
		}
	}
	return lost
}
