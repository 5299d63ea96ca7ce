package lb

import (
	"slices"
	"strings"
	"time"
)

// Reasons say why an endpoint has left its service. More than one reason means that it is not known which one holds.
// No reason means that the endpoint is not known to have left for good. It is just not picked any more, for example
// because the service uses other endpoints now, or because an operator drains it.
type Reasons uint8

// The reasons.
const (
	Deregistered Reasons = 1 << iota // it is no longer registered
	Critical                         // it is registered, and its health checks fail
	Unmatched                        // it is registered, and no longer matches what the service asks for
)

// String returns text such as "deregistered or unmatched".
func (r Reasons) String() string {
	var words []string
	for i, word := range []string{"deregistered", "critical", "unmatched"} {
		if r&(1<<i) != 0 {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return "unknown"
	}
	return strings.Join(words, " or ")
}

// A Departure says that an endpoint has left for good, and why. Only its address counts, not its ID and weight: the
// process at an address is the same whatever name it is registered under.
type Departure struct {
	Endpoint
	Why Reasons
}

// A Leave says why an endpoint has left for good, and since when.
type Leave struct {
	Why Reasons
	At  time.Time // when this reason became known
}

// Gone returns why the endpoint has left for good. It returns nil if the endpoint has not, or is back. It costs one
// atomic load.
func (m *Member) Gone() *Leave { return m.gone.Load() }

// A MemberKey identifies an endpoint of a service, at one address. All Members of one endpoint have the same key.
type MemberKey struct{ *usage }

// Key returns the key of m's endpoint.
func (m *Member) Key() MemberKey { return MemberKey{m.usage} }

// NotifyGone implements LoadBalancer. OnUpdate calls f with the Members of one service for which the result of Gone has
// changed to another reason. Calls for one service come in order; calls for several services may come concurrently. f
// must not block, and must not call the balancer. There is one callback; set it before the first update.
func (b *RoundRobin) NotifyGone(f func([]*Member)) { b.onGone.Store(&f) }

// markGoneLocked notes which former members have left for good, by what an update says, and which are back. It returns
// those whose reason is new.
func (g *group) markGoneLocked(left []Departure) (changed []*Member) {
	if len(g.former) == 0 {
		return nil
	}
	why := make(map[address]Reasons, len(left))
	for _, d := range left {
		why[g.addressOf(d.Endpoint)] = d.Why
	}
	for _, m := range g.former {
		old, reasons := m.gone.Load(), why[m.health.address]
		switch {
		case g.registry.hasMember(m.health.address, g):
			m.gone.Store(nil)
		case reasons != 0 && (old == nil || old.Why != reasons):
			m.gone.Store(&Leave{Why: reasons, At: time.Now()})
			changed = append(changed, m)
		}
	}
	return changed
}

// dropUnusedLocked forgets the former members without open uses.
func (g *group) dropUnusedLocked() {
	g.former = slices.DeleteFunc(g.former, func(m *Member) bool { return m.open.Load() == 0 })
}
