package discovery

import (
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A Guard says how far a set may shrink at once before Lictor doubts it.
//
// Instances that live vanish most often many or all at once: during an election, after a restart of the agent, or
// when a check depends on something shared. Operators remove one at a time. So a loss is sharp if nothing is left,
// or if more than MaxDrop of three or more endpoints are gone. After a sharp loss Lictor asks the leader. If the
// leader confirms it, new instances are taken in at once, and the lost ones stay in the set for Hold; the balancer
// ejects those that do not answer. An instance in maintenance is gone at once: an operator has put it there.
type Guard struct {
	// MaxDrop is in percent of a set. Zero means 50. With a negative value each loss of three or more endpoints is
	// sharp, with 100 an empty set only.
	MaxDrop int

	// Hold is how long lost endpoints stay. Zero means 10 seconds. With a negative value they go as soon as the leader
	// has confirmed the loss.
	Hold time.Duration
}

const (
	defaultMaxDrop = 50
	defaultHold    = 10 * time.Second

	guardedSet = 3 // MaxDrop counts for sets of so many endpoints and more
)

// withDefaults returns g with defaults in place of zeros, and zeros in place of negative values.
func (g Guard) withDefaults() Guard {
	if g.MaxDrop == 0 {
		g.MaxDrop = defaultMaxDrop
	}
	if g.Hold == 0 {
		g.Hold = defaultHold
	}
	return Guard{max(g.MaxDrop, 0), max(g.Hold, 0)}
}

// hold returns the set that follows from the answer in e, and which endpoints of it are held until when. It returns
// false if the leader has to confirm the answer first.
func (g Guard) hold(was belief, e evidence) (set []lb.Endpoint, held map[string]time.Time, ok bool) {
	lost := lostFrom(was.set, e.in)
	fresh := slices.ContainsFunc(lost, func(e lb.Endpoint) bool {
		_, heldBefore := was.held[e.ID]
		return !heldBefore
	})
	sharp := g.sharp(len(was.set), len(lost), len(e.in.endpoints))
	if sharp && fresh && !e.asked.leader {
		return nil, nil, false
	}
	set, held = slices.Clone(e.in.endpoints), map[string]time.Time{}
	for _, one := range lost {
		end, heldBefore := was.held[one.ID]
		if !heldBefore && sharp {
			end = e.now.Add(g.Hold)
		}
		if end.After(e.now) {
			held[one.ID] = end
			set = append(set, one)
		}
	}
	slices.SortFunc(set, func(a, b lb.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return set, held, true
}

// sharp reports whether to lose so many endpoints of a set, with so many in the new one, is a sharp loss.
func (g Guard) sharp(before, lost, now int) bool {
	return now == 0 || before >= guardedSet && 100*lost > g.MaxDrop*before
}

// lostFrom returns the endpoints of a set that an answer does not come to, neither under their ID nor under another
// ID at the same address. Endpoints in maintenance are not among them.
func lostFrom(set []lb.Endpoint, in instances) []lb.Endpoint {
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
