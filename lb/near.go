package lb

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Preference says how a service prefers near endpoints, those with Endpoint.Near.
type Preference int

// The preferences.
const (
	// PreferNone treats all endpoints alike.
	PreferNone Preference = iota

	// PreferFair keeps clients near as far as that is fair to the near endpoints, and spreads the others: see shareOut.
	PreferFair

	// PreferStrict keeps all clients near, as long as a near endpoint may serve.
	PreferStrict
)

// String returns one word for the preference, such as "fair".
func (p Preference) String() string {
	switch p {
	case PreferNone:
		return "none"
	case PreferFair:
		return "fair"
	case PreferStrict:
		return "strict"
	}
	return fmt.Sprintf("preference(%d)", int(p))
}

// A zone is a set of endpoints with equal Endpoint.Zone. All states of a group share its zones.
type zone struct {
	weight float64       // of the endpoints that are not ejected; guarded by the group's healthMu
	part   atomic.Uint64 // the bits of a float64, see farPart
}

// farPart returns the part of the zone's weight that counts for clients that leave the own zone: 1 for the zone with
// the most room, and 0 for a zone without room.
func (z *zone) farPart() float64 { return math.Float64frombits(z.part.Load()) }

// A nearby picks for a service that prefers near endpoints, and has both near endpoints and others. A nearby never
// changes, except for its atomics; an update replaces it.
type nearby struct {
	chooser chooser // of the near members
	own     *zone   // holds the weight of the near members
	others  []*zone

	// share is the share of clients that stay near, as a number of clients out of wholeShare. Zero means that no near
	// endpoint may serve, and that clients are spread by weight.
	share atomic.Uint64
	turns atomic.Uint64 // sum of the shares of all clients so far
}

const wholeShare = 1 << 32

// newNearby returns a nearby for the members, or nil if they are all near or none is.
func newNearby(g *group, o *Options, members []*Member, old *nearby) *nearby {
	if o.Prefer == PreferNone {
		return nil
	}
	n := &nearby{own: &zone{}}
	var near []*Member
	for _, m := range members {
		if m.Near {
			near = append(near, m)
		} else if !slices.Contains(n.others, m.zone) {
			n.others = append(n.others, m.zone)
		}
	}
	if len(near) == 0 || len(near) == len(members) {
		return nil
	}
	var before chooser
	n.share.Store(wholeShare)
	if old != nil {
		before = old.chooser
		n.share.Store(old.share.Load())
		n.turns.Store(old.turns.Load())
	}
	n.chooser = newChooser(g, o.Policy, near, before)
	return n
}

// choose picks a near member, or another one if it is the client's turn to leave the zone or no near member may serve.
// all is the chooser of all members.
func (n *nearby) choose(all *chooser, src netip.Addr, q *query) *Member {
	share := n.share.Load()
	switch {
	case share == 0:
	case n.stays(share, src, all.hash != nil):
		if m := n.chooser.choose(src, q); m != nil {
			return m
		}
	default:
		q.leaves = true
		m := all.choose(src, q)
		if q.leaves = false; m != nil {
			return m
		}
	}
	return all.choose(src, q)
}

// stays reports whether a client stays near. If byHash is true, the client's address decides, so that a client does not
// change sides while share stays the same. Otherwise the clients that leave are spread evenly over all clients.
func (n *nearby) stays(share uint64, src netip.Addr, byHash bool) bool {
	if share >= wholeShare {
		return true
	}
	if byHash {
		return mix(hashAddr(src)^staysSeed)%wholeShare < share
	}
	sum := n.turns.Add(share)
	return sum/wholeShare != (sum-share)/wholeShare
}

// staysSeed makes the decision of stays independent of the choice of the member.
const staysSeed = 0x6c6963746f72

// shareOut computes which share of the clients stays near, and how the others are spread. Call it when the weights of
// zones have changed, with the group's healthMu locked.
//
// Each Lictor knows only its own clients. It assumes that each zone with endpoints has as many clients as any other
// such zone. Let Z be the number of these zones, w the weight of the endpoints of a zone, and W the sum of all w. Each
// zone has 1/Z of the clients, and w/W of the weight.
//
//   - If w/W >= 1/Z in the own zone, all its clients stay.
//   - Otherwise, the share Z·w/W of its clients stays. The others go to the zones with room, in proportion to their
//     room w/W - 1/Z. Zones without room get none of them.
//
// The room of all zones together is exactly what the other zones lack. If all zones do the same, each endpoint gets
// clients in proportion to its weight, as without preference, and as few clients as possible leave their zone. A zone
// without endpoints spreads its clients by weight, which changes no proportion.
func (n *nearby) shareOut(strict bool) {
	total, zones := n.own.weight, 1
	for _, z := range n.others {
		if z.weight > 0 {
			total, zones = total+z.weight, zones+1
		}
	}
	share := float64(zones) * n.own.weight / total
	switch {
	case n.own.weight <= 0:
		n.share.Store(0)
		return
	case strict || share > 1-1e-9:
		n.share.Store(wholeShare)
		return
	}
	most := 0.0
	for _, z := range n.others {
		most = max(most, n.roomPerWeight(z, total, zones))
	}
	for _, z := range n.others {
		z.part.Store(math.Float64bits(n.roomPerWeight(z, total, zones) / most))
	}
	n.share.Store(max(uint64(share*wholeShare), 1))
}

// roomPerWeight returns the room of the zone z for clients of other zones, for each unit of its weight.
func (n *nearby) roomPerWeight(z *zone, total float64, zones int) float64 {
	if z.weight <= 0 {
		return 0
	}
	return max(z.weight/total-1/float64(zones), 0) / z.weight
}

// sharesEvery is how often the shares of clients are computed during a slow start.
const sharesEvery = 50 * time.Millisecond

// weighZonesLocked weighs the zones of st, and shares out the clients. A member in a slow start has less weight. Call
// weighZonesLocked with healthMu locked.
func (g *group) weighZonesLocked(st *state) {
	n := st.near
	if n == nil {
		return
	}
	n.own.weight = 0
	for _, z := range n.others {
		z.weight = 0
	}
	q := query{now: g.registry.clock.now(), slowStart: st.options.SlowStart, panicking: g.panicking.Load()}
	for _, m := range st.members {
		if !q.healthy(m) {
			continue
		}
		z := m.zone
		if m.Near {
			z = n.own
		}
		z.weight += float64(m.Weight) * q.share(m)
	}
	n.shareOut(st.options.Prefer == PreferStrict)
	g.sharesDue.Store(q.now.add(sharesEvery))
}

// endSlowStart notes that the last slow start is over. end is when it ended.
func (g *group) endSlowStart(st *state, end instant) {
	if !g.slowStartEnd.CompareAndSwap(end, 0) || st.near == nil {
		return
	}
	g.healthMu.Lock()
	defer g.healthMu.Unlock()
	g.weighZonesLocked(g.state.Load())
}

// refreshShares shares out the clients anew if that is due during a slow start. now is the current time. refreshShares
// does not wait for another goroutine.
func (g *group) refreshShares(st *state, now instant) {
	if st.near == nil || now < g.sharesDue.Load() || !g.healthMu.TryLock() {
		return
	}
	defer g.healthMu.Unlock()
	if g.state.Load() == st {
		g.weighZonesLocked(st)
	}
}

// zoneLocked returns the zone of this name, which may be empty.
func (g *group) zoneLocked(name string) *zone {
	if name == "" {
		return &g.nowhere
	}
	z := g.zones[name]
	if z == nil {
		if g.zones == nil {
			g.zones = map[string]*zone{}
		}
		z = &zone{}
		g.zones[name] = z
	}
	return z
}

// dropZonesLocked forgets the zones without members.
func (g *group) dropZonesLocked(members []*Member) {
	if len(g.zones) == 0 {
		return
	}
	used := make(map[*zone]bool, len(g.zones))
	for _, m := range members {
		used[m.zone] = true
	}
	for name, z := range g.zones {
		if !used[z] {
			delete(g.zones, name)
		}
	}
}

// A NearSnapshot says how a service prefers near endpoints at one moment.
type NearSnapshot struct {
	Prefer Preference
	Share  float64 // share of the clients that stay near, between 0 and 1
	Zones  int     // zones with endpoints that are not ejected
	Weight float64 // part of the weight of all such endpoints that is near, between 0 and 1

	// Stayed and Left count the picks of near endpoints and of others, since the service exists.
	Stayed, Left int64
}

// nearSnapshot returns nil for a service without preference.
func (g *group) nearSnapshot(st *state) *NearSnapshot {
	if st.options.Prefer == PreferNone {
		return nil
	}
	s := &NearSnapshot{Prefer: st.options.Prefer, Stayed: g.stayed.Load(), Left: g.left.Load()}
	q := query{now: g.registry.clock.now(), slowStart: st.options.SlowStart, panicking: g.panicking.Load()}
	zones, total := map[string]bool{}, 0.0
	for _, m := range st.members {
		if !q.healthy(m) {
			continue
		}
		weight := float64(m.Weight) * q.share(m)
		total += weight
		zones[m.Zone] = true
		if m.Near {
			s.Weight += weight
		}
	}
	if s.Zones = len(zones); total > 0 {
		s.Weight /= total
	}
	switch {
	case st.near != nil:
		s.Share = float64(st.near.share.Load()) / wholeShare
	case s.Weight > 0:
		s.Share = 1
	}
	return s
}
