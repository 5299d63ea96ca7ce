package lb

// An Ejection is what is known of an ejected address, for another process.
type Ejection struct {
	Network  Network
	Endpoint Endpoint // its address only
	Cause    Cause
	InARow   int // times that it was ejected
}

// Ejections returns the addresses that are ejected, in no order.
func (b *RoundRobin) Ejections() (all []Ejection) {
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	for a, h := range b.registry.healths {
		h.mu.Lock()
		if h.ejectedUntil.Load() != 0 {
			e := Endpoint{Host: a.host, Addr: a.addr}
			all = append(all, Ejection{Network: a.network, Endpoint: e, Cause: h.cause, InARow: h.ejections})
		}
		h.mu.Unlock()
	}
	return all
}

// SetEjections has addresses be ejected that another process has found to fail. It is to be called before there are
// updates. The addresses are tried again at once.
func (b *RoundRobin) SetEjections(all []Ejection) {
	r := b.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.now()
	for _, e := range all {
		a := address{network: e.Network, host: e.Endpoint.Host, addr: e.Endpoint.Addr}
		if r.healths[a] != nil || e.InARow < 1 {
			continue
		}
		h := &health{registry: r, address: a, cause: e.Cause, ejections: e.InARow}
		h.troubled.Store(true)
		h.due.Store(now)
		h.ejectedUntil.Store(now)
		r.healths[a], r.unused[h] = h, now
	}
}
