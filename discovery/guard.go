package discovery

import (
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A Guard says how far a set may shrink at once before that is doubted. Servers in an election, an agent that has just been restarted
// and a check that depends on something shared all make instances vanish that live, and most often many or all at once; operators
// remove one at a time. So if nothing is left, or more than MaxDrop of three or more are gone, the servers are asked again for a
// consistent answer. If they say the same, new instances are taken in, and those that vanished stay in the set for Hold. That they do
// not answer any more is for the balancer to find out: it ejects them after a few dials. An instance in maintenance is gone at once:
// somebody has said so.
type Guard struct {
	MaxDrop int           // percent of a set. Zero: 50. Negative: each loss of a set of three or more counts. 100: only an empty set
	Hold    time.Duration // Zero: 10 seconds. Negative: what the servers have confirmed counts at once
}

const (
	defaultMaxDrop = 50
	defaultHold    = 10 * time.Second

	guardedSet = 3 // endpoints that a set must have had for MaxDrop to count
)

// A holder applies a Guard to one set.
type holder struct {
	guard Guard                // with defaults
	until map[string]time.Time // held endpoints: until when, by ID
}

func (g Guard) withDefaults() Guard {
	if g.MaxDrop == 0 {
		g.MaxDrop = defaultMaxDrop
	}
	if g.Hold == 0 {
		g.Hold = defaultHold
	}
	return Guard{max(g.MaxDrop, 0), max(g.Hold, 0)}
}

// judge returns the set that follows from the set that was and what Consul says now: what Consul says, and what is held. If Consul's
// word is not enough for that, ok is false and nothing has changed; confirmed says that it has been asked again.
func (h *holder) judge(now time.Time, was []lb.Endpoint, in instances, confirmed bool) (set []lb.Endpoint, ok bool) {
	gone := vanished(was, in)
	fresh := slices.DeleteFunc(slices.Clone(gone), func(e lb.Endpoint) bool { return h.holds(e.ID) })
	sharp := len(in.endpoints) == 0 || len(was) >= guardedSet && 100*len(gone) > h.guard.MaxDrop*len(was)
	if sharp && len(fresh) > 0 && !confirmed {
		return nil, false
	}
	until := map[string]time.Time{}
	set = slices.Clone(in.endpoints)
	for _, e := range gone {
		end, held := h.until[e.ID]
		if !held && sharp {
			end = now.Add(h.guard.Hold)
		}
		if end.After(now) {
			until[e.ID] = end
			set = append(set, e)
		}
	}
	h.until = until
	slices.SortFunc(set, func(a, b lb.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return set, true
}

func (h *holder) holds(id string) bool {
	_, held := h.until[id]
	return held
}

// next returns when the first of the held endpoints is to be let go; zero: none is held.
func (h *holder) next() time.Time {
	var first time.Time
	for _, t := range h.until {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first
}

// vanished returns the endpoints of the set that was that are not in the new one, under their ID or another one at the same address, and
// whose instances are not in maintenance.
func vanished(was []lb.Endpoint, in instances) []lb.Endpoint {
	here, addresses := make(map[string]bool, len(in.endpoints)), make(map[place]bool, len(in.endpoints))
	for _, e := range in.endpoints {
		here[e.ID], addresses[placeOf(e)] = true, true
	}
	for _, one := range in.all {
		if one.Out == OutMaintenance {
			here[one.ID] = true
		}
	}
	var gone []lb.Endpoint
	for _, e := range was {
		if !here[e.ID] && !addresses[placeOf(e)] {
			gone = append(gone, e)
		}
	}
	return gone
}
