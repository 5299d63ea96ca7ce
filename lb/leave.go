package lb

import (
	"slices"
	"strings"
	"time"
)

// Reasons is a set of reasons why an endpoint has left its service. If the set has several reasons, one of them holds,
// but it is not known which. If the set is empty, the endpoint is not known to have left for good. Such an endpoint is
// just no longer picked, for example because the service uses other endpoints now, or because an operator drains the
// endpoint.
type Reasons uint8

// The reasons.
const (
	Deregistered Reasons = 1 << iota // the instance is no longer registered
	Critical                         // the instance is registered, and its health checks fail
	Unmatched                        // the instance is registered, and no longer matches what the service asks for
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

// A Departure says that an endpoint has left for good, and why. Only the address of the Endpoint counts, not its ID or
// weight: the process at an address is the same under whatever name it is registered.
type Departure struct {
	Endpoint
	Why Reasons
}

// A Leave says why and since when an endpoint has left for good.
type Leave struct {
	Why Reasons
	At  time.Time // when the balancer learned this reason
}

// Gone returns why the endpoint has left for good. Gone returns nil if the endpoint has not left for good, or is back.
// Gone costs one atomic load.
func (m *Member) Gone() *Leave { return m.gone.Load() }

// A MemberKey identifies an endpoint of a service at one address. All Members of one endpoint have the same MemberKey.
type MemberKey struct{ *usage }

// Key returns the key of m's endpoint.
func (m *Member) Key() MemberKey { return MemberKey{m.usage} }

// Service returns the name of the service that m is an endpoint of.
func (m *Member) Service() string { return m.group.name }

// Keep says whether the endpoint may have connections that are no uses, see Choices. If it has, the balancer remembers
// the endpoint after it has left, so that Gone and NotifyGone say why it has left, even if that is known only later.
func (m *Member) Keep(has bool) { m.kept.Store(has) }

// NotifyGone implements LoadBalancer. OnUpdate calls f with the Members of one service that have left for good with a
// new or changed reason. Calls for one service come in order; calls for different services may be concurrent. f must
// not block, and must not call the balancer. The balancer has only one NotifyGone callback. Set the callback before the
// first update.
func (b *RoundRobin) NotifyGone(f func([]*Member)) { b.onGone.Store(&f) }

// markGoneLocked notes which former members have left for good, as an update says, and which are back. markGoneLocked
// returns the members with a new reason.
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

// dropUnusedLocked forgets the former members without connections.
func (g *group) dropUnusedLocked() {
	g.former = slices.DeleteFunc(g.former, func(m *Member) bool { return m.open.Load() == 0 && !m.kept.Load() })
}
