package lb

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
)

// A Balancer is a LoadBalancer in which each service has its Options. Services share what is known of addresses.
//
// The order of a service's first endpoints is shuffled, so that a fleet that starts together does not send all its
// first connections to one instance.
type Balancer struct {
	services sync.Map                        // of service name to *group
	onGone   atomic.Pointer[func([]*Member)] // nil: nobody wants to know
	registry *healthRegistry
	shuffle  func(n int, swap func(i, j int))
}

var _ LoadBalancer = (*Balancer)(nil)

// NewBalancer returns a Balancer that knows no service yet.
func NewBalancer() *Balancer {
	return &Balancer{registry: newHealthRegistry(), shuffle: rand.Shuffle}
}

// Configure sets the options of a service, which has the default ones otherwise. It may be called at any time:
// endpoints, their open uses and what is known of them stay. Options go with the service when an update removes it.
func (b *Balancer) Configure(service string, o Options) {
	for !b.groupOf(service).configure(o) { // an update has just removed it
	}
}

// groupOf returns the group of a service. It makes one if there is none.
func (b *Balancer) groupOf(service string) *group {
	v, ok := b.services.Load(service)
	if !ok {
		v, _ = b.services.LoadOrStore(service, newGroup(service, b))
	}
	return v.(*group)
}

// NextEndpoint implements LoadBalancer.
func (b *Balancer) NextEndpoint(service string, src netip.AddrPort, tried Tried) (*Member, error) {
	v, ok := b.services.Load(service)
	if !ok {
		return nil, ErrMissingServiceEntry
	}
	return v.(*group).nextEndpoint(src.Addr(), &tried)
}

// OnUpdate implements LoadBalancer. Endpoints that stay keep their place in the order and the turns they are owed;
// new ones come last in the order. Of endpoints with equal IDs the first counts; endpoints without an address or a
// port are left out.
//
// An update of one service does not wait for updates of others.
func (b *Balancer) OnUpdate(updates []Endpoints) {
	for _, u := range updates {
		if u.Removed {
			if v, ok := b.services.LoadAndDelete(u.Service); ok {
				v.(*group).remove()
			}
			continue
		}
		endpoints := validEndpoints(u.Endpoints)
		for !b.groupOf(u.Service).update(endpoints, u.Left) { // another update has just removed it
		}
	}
}

// validEndpoints returns a copy of endpoints without those that nobody could dial and without repeated IDs.
func validEndpoints(endpoints []Endpoint) []Endpoint {
	out := make([]Endpoint, 0, len(endpoints))
	var seen map[string]bool // nil as long as IDs ascend, as sources sort them
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
