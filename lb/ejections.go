package lb

// An Ejection is what is known of an ejected address, for another process.
type Ejection struct {
	Network  Network
	Endpoint Endpoint // its address only
	Cause    Cause
	InARow   int // times that it was ejected, without those for quickEjection
	Quick    int `json:",omitempty"` // times that it was ejected for quickEjection

	// CheckFailed says that only an answer ends the ejection, as long as the address is checked.
	CheckFailed bool `json:",omitempty"`
}

// Ejections returns the addresses that are ejected, in no order.
func (b *RoundRobin) Ejections() (all []Ejection) {
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	for a, h := range b.registry.healths {
		h.mu.Lock()
		if h.ejectedUntil.Load() != 0 {
			e := Endpoint{Host: a.host, Addr: a.addr}
			all = append(all, Ejection{Network: a.network, Endpoint: e, Cause: h.cause, InARow: h.ejections,
				Quick: h.quick, CheckFailed: h.checks.decide()})
		}
		h.mu.Unlock()
	}
	return all
}

// SetEjections has addresses be ejected that another process has found to fail. It is to be called before there are
// updates. The addresses are tried again at once, those that must answer a check after minEjection: until then checks
// of them have begun.
func (b *RoundRobin) SetEjections(all []Ejection) {
	r := b.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.now()
	for _, e := range all {
		a := address{network: e.Network, host: e.Endpoint.Host, addr: e.Endpoint.Addr}
		if r.healths[a] != nil || e.InARow+e.Quick < 1 {
			continue
		}
		h := &health{registry: r, address: a, cause: e.Cause, quick: e.Quick, ejections: e.InARow}
		h.troubled.Store(true)
		h.marked.Store(true)
		until := now
		if h.checks.failed = e.CheckFailed; e.CheckFailed {
			until = now.add(minEjection)
		}
		h.due.Store(until)
		h.ejectedUntil.Store(until)
		r.healths[a], r.unused[h] = h, now
	}
}
