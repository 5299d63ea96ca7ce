package lb

import (
	"math/rand/v2"
	"net/netip"
	"sync"
)

// A Balancer is a LoadBalancer in which each service has its Options. Services share what is known of addresses.
//
// The order of a service's first endpoints is shuffled, so that a fleet that starts together does not send all its first
// connections to one instance.
type Balancer struct {
	services sync.Map // of service name to *group
	update   sync.Mutex
	notify   func([]*Member) // nil: nobody wants to know; guarded by update
	book     *book
	shuffle  func(n int, swap func(i, j int))
}

var _ LoadBalancer = (*Balancer)(nil)

// NewBalancer returns a Balancer that knows no service yet.
func NewBalancer() *Balancer {
	return &Balancer{book: newBook(), shuffle: rand.Shuffle}
}

// Configure sets the options of a service, which has the default ones otherwise. It may be called at any time: endpoints, their open
// uses and what is known of them stay. Options go with the service when an update removes it.
func (b *Balancer) Configure(service string, o Options) {
	b.update.Lock()
	defer b.update.Unlock()
	b.group(service).configure(o)
}

// group is the group of a service, a new one if there is none. To be called with update held.
func (b *Balancer) group(service string) *group {
	if v, ok := b.services.Load(service); ok {
		return v.(*group)
	}
	g := newGroup(service, b.book)
	b.services.Store(service, g)
	return g
}

// NextEndpoint implements LoadBalancer.
func (b *Balancer) NextEndpoint(service string, src netip.AddrPort, tried Tried) (*Member, error) {
	v, ok := b.services.Load(service)
	if !ok {
		return nil, ErrMissingServiceEntry
	}
	return v.(*group).next(src.Addr(), &tried)
}

// OnUpdate implements LoadBalancer. Endpoints that stay keep their place in the order and the turns they are owed; new ones come
// last in the order. Of endpoints with equal IDs the first counts; endpoints without an address or a port are left out.
func (b *Balancer) OnUpdate(updates []Endpoints) {
	b.update.Lock()
	defer b.update.Unlock()
	for _, u := range updates {
		if u.Removed {
			if v, ok := b.services.LoadAndDelete(u.Service); ok {
				v.(*group).replace(nil, nil, false)
			}
			continue
		}
		endpoints := valid(u.Endpoints)
		g := b.group(u.Service)
		if !g.state.Load().known {
			b.shuffle(len(endpoints), func(i, j int) { endpoints[i], endpoints[j] = endpoints[j], endpoints[i] })
		}
		if gone := g.replace(endpoints, u.Left, true); len(gone) > 0 && b.notify != nil {
			b.notify(gone)
		}
	}
}

// valid returns a copy of endpoints without those that nobody could dial and without repeated IDs.
func valid(endpoints []Endpoint) []Endpoint {
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
