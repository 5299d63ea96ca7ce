package lb

// Take is a use of one certain endpoint, for a client that an earlier process has paired with it: policies, limits and ejections have no
// say. It is nil if the service does not have the endpoint, with that ID at that address.
func (b *Balancer) Take(service string, e Endpoint) *Member {
	v, ok := b.services.Load(service)
	if !ok {
		return nil
	}
	g := v.(*group)
	for _, m := range g.state.Load().members {
		if m.ID == e.ID && m.Host == e.Host && m.Addr == e.Addr {
			m.open.Add(1)
			g.open.Add(1)
			return m
		}
	}
	return nil
}
