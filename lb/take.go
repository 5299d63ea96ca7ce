package lb

// Take is a use of one certain endpoint, for a client that an earlier process has paired with it: policies, limits
// and ejections have no say. It is nil if the service does not have the endpoint, with that ID at that address.
func (b *RoundRobin) Take(service string, e Endpoint) *Member {
	v, ok := b.services.Load(service)
	if !ok {
		return nil
	}
	g := v.(*group)
	m := g.state.Load().roster.byID()[e.ID]
	if m == nil || m.Host != e.Host || m.Addr != e.Addr {
		return nil
	}
	m.begin()
	return m
}
