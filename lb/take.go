package lb

// Take implements LoadBalancer. Take ignores policies, limits and ejections. Take returns nil if the service has no
// endpoint with both the ID and the address of e.
func (b *RoundRobin) Take(service string, e Endpoint) *Member {
	v, ok := b.services.Load(service)
	if !ok {
		return nil
	}
	g := v.(*group)
	m := g.state.Load().roster.byID()[e.ID]
	if m == nil || m.Place() != e.Place() {
		return nil
	}
	m.begin()
	return m
}
