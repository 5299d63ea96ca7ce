package lb

import (
	"slices"
	"strings"
	"time"
)

// Reasons are why an endpoint has left its service: one, or several of which nobody knows which it is. None means
// that it is not known to have left for good: it is only picked no more, because the service goes to other ones now,
// or an operator wants it so.
type Reasons uint8

// The reasons there are.
const (
	Deregistered Reasons = 1 << iota // nobody offers it any more
	Critical                         // it is there, and fails
	Unmatched                        // it is there, and is not what the service asks for any more
)

// String is such as "deregistered or unmatched".
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

// A Departure says that an endpoint has left for good, and why. Its ID and weight do not count: the process at an
// address is the same under whatever name it is registered.
type Departure struct {
	Endpoint
	Why Reasons
}

// A Leave is why and since when an endpoint has left for good.
type Leave struct {
	Why Reasons
	At  time.Time // since when for this reason
}

// Gone returns why the endpoint has left for good; nil: it has not, or is back. It is one atomic load.
func (m *Member) Gone() *Leave { return m.gone.Load() }

// A MemberKey tells the endpoint that a Member is of from all others. Members that the same endpoint is handed out as
// have the same.
type MemberKey struct{ *usage }

// Key is that of m.
func (m *Member) Key() MemberKey { return MemberKey{m.usage} }

// NotifyGone has f called with the members of one service for which Gone returns another reason than before. OnUpdate
// calls f: in order for each service, and at the same time for several. So f must not wait for anything, nor call the
// balancer. There is one f; set it before there are updates.
func (b *RoundRobin) NotifyGone(f func([]*Member)) { b.onGone.Store(&f) }

// markGoneLocked notes which of those that left, now or before, have left for good by what an update says, and which
// of them are back. It returns those of which it has not been known, or not why.
func (g *group) markGoneLocked(left []Departure) (changed []*Member) {
	if len(g.former) == 0 {
		return nil
	}
	why := make(map[address]Reasons, len(left))
	for _, d := range left {
		why[g.addressOf(d.Endpoint)] = d.Why
	}
	for _, m := range g.former {
		old, now := m.gone.Load(), why[m.health.address]
		switch {
		case g.registry.hasMember(m.health.address, g):
			m.gone.Store(nil)
		case now != 0 && (old == nil || old.Why != now):
			m.gone.Store(&Leave{Why: now, At: time.Now()})
			changed = append(changed, m)
		}
	}
	return changed
}

// dropUnusedLocked forgets those that left whom nobody uses any more.
func (g *group) dropUnusedLocked() {
	g.former = slices.DeleteFunc(g.former, func(m *Member) bool { return m.open.Load() == 0 })
}
