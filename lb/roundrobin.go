package lb

import (
	"math/rand/v2"
	"net/netip"
	"sync"
)

// RoundRobin is a LoadBalancer that gives every endpoint its turn, weighted endpoints as many turns as their weight says, spread
// evenly: 3:1:1 goes A B A C A, not A A A B C. See rotation for what holds exactly.
//
// The order of a service's first endpoints is shuffled, so that a fleet that starts together does not send all its first
// connections to one instance.
type RoundRobin struct {
	services sync.Map // of service name to *rotation
	update   sync.Mutex
	shuffle  func(n int, swap func(i, j int))
}

var _ LoadBalancer = (*RoundRobin)(nil)

// NewRoundRobin returns a RoundRobin that knows no service yet.
func NewRoundRobin() *RoundRobin {
	return &RoundRobin{shuffle: rand.Shuffle}
}

// NextEndpoint implements LoadBalancer. The client's address does not matter.
func (b *RoundRobin) NextEndpoint(service string, _ netip.AddrPort, tried Tried) (*Member, error) {
	v, ok := b.services.Load(service)
	if !ok {
		return nil, ErrMissingServiceEntry
	}
	m, ok := v.(*rotation).next(&tried)
	if !ok {
		return nil, ErrMissingEndpoints
	}
	return m, nil
}

// OnUpdate implements LoadBalancer. Endpoints that stay keep their place in the order and the turns they are owed; new ones come
// last in the order. Of endpoints with equal IDs the first counts; endpoints without an address or a port are left out.
func (b *RoundRobin) OnUpdate(updates []Endpoints) {
	b.update.Lock()
	defer b.update.Unlock()
	for _, u := range updates {
		if u.Removed {
			if v, ok := b.services.LoadAndDelete(u.Service); ok {
				v.(*rotation).replace(nil)
			}
			continue
		}
		endpoints := valid(u.Endpoints)
		if v, ok := b.services.Load(u.Service); ok {
			v.(*rotation).replace(endpoints)
			continue
		}
		b.shuffle(len(endpoints), func(i, j int) { endpoints[i], endpoints[j] = endpoints[j], endpoints[i] })
		r := &rotation{}
		r.replace(endpoints)
		b.services.Store(u.Service, r)
	}
}

// valid returns a copy of endpoints without those that nobody could dial and without repeated IDs.
func valid(endpoints []Endpoint) []Endpoint {
	out := make([]Endpoint, 0, len(endpoints))
	seen := make(map[string]bool, len(endpoints))
	for _, e := range endpoints {
		if e.Addr.Port() == 0 || (e.Host == "" && !e.Addr.Addr().IsValid()) || seen[e.ID] {
			continue
		}
		e.Weight = max(e.Weight, 1)
		seen[e.ID] = true
		out = append(out, e)
	}
	return out
}
