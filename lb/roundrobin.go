package lb

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
)

// A RoundRobin is the LoadBalancer of this package. RoundRobin gives the endpoints of a service turns in proportion to
// their weights: an endpoint of weight 3 gets three turns where an endpoint of weight 1 gets one. Turns are spread
// evenly (A B A C A, not A A A B C). RoundRobin skips endpoints that fail.
//
// A service uses round robin unless Configure sets another Policy. Configure also sets limits and stickiness. All
// services share the health of an address.
//
// RoundRobin shuffles the first set of endpoints of each service. Without shuffling, all Lictors of a fleet that starts
// at the same time would send their first connections to one instance.
type RoundRobin struct {
	services sync.Map                        // service name to *group
	onGone   atomic.Pointer[func([]*Member)] // the NotifyGone callback; nil: none
	onEnded  atomic.Pointer[func()]          // the NotifyEnded callback; nil: none
	registry *healthRegistry

	onChoices atomic.Pointer[func(string)] // the NotifyChoices callback; nil: none

	shuffle func(n int, swap func(i, j int))
}

var _ LoadBalancer = (*RoundRobin)(nil)

// NewRoundRobin returns a RoundRobin without services.
func NewRoundRobin() *RoundRobin {
	return &RoundRobin{registry: newHealthRegistry(), shuffle: rand.Shuffle}
}

// Configure sets the options of a service. A service that was never configured has the zero Options. Configure may be
// called at any time, even before the first update of the service. The service keeps its endpoints, their open uses and
// their health. An update with Removed set forgets the options.
func (b *RoundRobin) Configure(service string, o Options) {
	for !b.groupOf(service).configure(o) { // retry: an update has just removed this group
	}
}

// groupOf returns the group of a service. If there is no group, groupOf creates one.
func (b *RoundRobin) groupOf(service string) *group {
	v, ok := b.services.Load(service)
	if !ok {
		v, _ = b.services.LoadOrStore(service, newGroup(service, b))
	}
	return v.(*group)
}

// NextEndpoint implements LoadBalancer.
func (b *RoundRobin) NextEndpoint(service string, src netip.AddrPort, tried Tried) (*Member, error) {
	v, ok := b.services.Load(service)
	if !ok {
		return nil, ErrMissingServiceEntry
	}
	return v.(*group).nextEndpoint(src.Addr(), &tried)
}

// OnUpdate implements LoadBalancer. Endpoints that stay keep their position in the order and the turns that they are
// owed. New endpoints are appended to the order. If two endpoints have the same ID, OnUpdate ignores the second.
// OnUpdate also ignores endpoints that have no address or no port.
//
// An update of one service does not wait for updates of other services.
func (b *RoundRobin) OnUpdate(updates []Endpoints) {
	for _, u := range updates {
		if u.Removed {
			if v, ok := b.services.LoadAndDelete(u.Service); ok {
				v.(*group).remove()
			}
			continue
		}
		endpoints := validEndpoints(u.Endpoints)
		for !b.groupOf(u.Service).update(endpoints, u.Left) { // retry: another update has just removed this group
		}
	}
}

// validEndpoints returns a copy of endpoints without repeated IDs and without endpoints that cannot be dialled. Weights
// below 1 become 1.
func validEndpoints(endpoints []Endpoint) []Endpoint {
	out := make([]Endpoint, 0, len(endpoints))
	var seen map[string]bool // nil while the IDs ascend; sources usually sort endpoints by ID
	for i, e := range endpoints {
		if seen == nil && i > 0 && e.ID <= endpoints[i-1].ID {
			seen = make(map[string]bool, len(endpoints))
			for _, e := range out {
				seen[e.ID] = true
			}
		}
		if !e.canBeDialled() || seen[e.ID] {
			continue
		}
		e.Weight = max(e.Weight, 1)
		if seen != nil {
			seen[e.ID] = true
		}
		out = append(out, e)
	}
	return out
}

// canBeDialled reports whether e has an address.
func (e Endpoint) canBeDialled() bool {
	return e.Path != "" || e.Addr.Port() != 0 && (e.Host != "" || e.Addr.Addr().IsValid())
}
