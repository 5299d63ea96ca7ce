package lb

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
)

// A RoundRobin is the LoadBalancer of this package. It gives each endpoint of a service its turn: an endpoint of weight
// 3 gets three turns where one of weight 1 gets one, spread evenly (A B A C A, not A A A B C). It leaves out endpoints
// that fail.
//
// Round robin is what a service gets unless Configure gives it another Policy, or limits, or stickiness. All services
// share what is known about the health of an address.
//
// The order of a service's first endpoints is shuffled, so that a fleet that starts together does not send all its
// first connections to one instance.
type RoundRobin struct {
	services sync.Map                        // of service name to *group
	onGone   atomic.Pointer[func([]*Member)] // the callback of NotifyGone; nil: none
	onEnded  atomic.Pointer[func()]          // the callback of NotifyEnded; nil: none
	registry *healthRegistry
	shuffle  func(n int, swap func(i, j int))
}

var _ LoadBalancer = (*RoundRobin)(nil)

// NewRoundRobin returns a RoundRobin without services.
func NewRoundRobin() *RoundRobin {
	return &RoundRobin{registry: newHealthRegistry(), shuffle: rand.Shuffle}
}

// Configure sets the options of a service. A service that was never configured has the zero Options. Configure may be
// called at any time, before the first update of the service too: its endpoints, their open uses and their health stay.
// An update with Removed set forgets the options.
func (b *RoundRobin) Configure(service string, o Options) {
	for !b.groupOf(service).configure(o) { // retry: an update has just removed this group
	}
}

// groupOf returns the group of a service, and creates it if there is none.
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

// OnUpdate implements LoadBalancer. Endpoints that stay keep their position in the order and the turns they are owed;
// new ones are appended. If two endpoints have the same ID, the second is ignored. Endpoints without an address or a
// port are ignored too.
//
// An update of one service does not wait for updates of others.
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

// validEndpoints returns a copy of endpoints without repeated IDs and without those that cannot be dialled. Weights
// below 1 become 1.
func validEndpoints(endpoints []Endpoint) []Endpoint {
	out := make([]Endpoint, 0, len(endpoints))
	var seen map[string]bool // nil while the IDs ascend, which is how sources sort them
	for i, e := range endpoints {
		if seen == nil && i > 0 && e.ID <= endpoints[i-1].ID {
			seen = make(map[string]bool, len(endpoints))
			for _, e := range out {
				seen[e.ID] = true
			}
		}
		if e.Addr.Port() == 0 || (e.Host == "" && !e.Addr.Addr().IsValid()) || seen[e.ID] {
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
