package lb

import "slices"

// A Denying describes an endpoint that does not serve the connections of a service, for another process.
type Denying struct {
	Service    string
	Endpoint   Endpoint // only the ID and the address count
	Denied     Unserved
	Unanswered Unserved
	Told       bool // the callback for denials knows that the endpoint denies
}

// Denials returns all endpoints that have denied connections, or left them unanswered, since they last answered one of
// the same service. The order is random.
func (b *RoundRobin) Denials() (all []Denying) {
	b.services.Range(func(name, g any) bool {
		for _, m := range g.(*group).state.Load().members {
			u := m.unserved.Load()
			if u == nil {
				continue
			}
			u.mu.Lock()
			one := Denying{name.(string), m.Endpoint, u.denied, u.unanswered, u.told}
			u.mu.Unlock()
			if one.Denied.Connections+one.Unanswered.Connections > 0 {
				all = append(all, one)
			}
		}
		return true
	})
	return all
}

// SetDenials notes what another process knew of endpoints, and does not call the callback for denials. SetDenials does
// nothing to unknown endpoints, and to those that have denied connections of this process. So call SetDenials after the
// first update.
func (b *RoundRobin) SetDenials(all []Denying) {
	for _, one := range all {
		v, ok := b.services.Load(one.Service)
		if !ok {
			continue
		}
		members := v.(*group).state.Load().members
		i := slices.IndexFunc(members, func(m *Member) bool {
			return m.ID == one.Endpoint.ID && m.Place() == one.Endpoint.Place()
		})
		if i >= 0 {
			members[i].unserved.CompareAndSwap(nil,
				&unserved{denied: one.Denied, unanswered: one.Unanswered, told: one.Told})
		}
	}
}
