package lb

// An Ejection describes an ejected address, for another process.
type Ejection struct {
	Network  Network
	Endpoint Endpoint // only the address counts
	Cause    Cause
	InARow   int // ejections in a row, without those that lasted quickEjection
	Quick    int `json:",omitempty"` // ejections in a row that lasted quickEjection

	// CheckFailed says that only an answer to an active check ends the ejection, as long as the address is checked.
	CheckFailed bool `json:",omitempty"`
}

// Ejections returns all ejected addresses, in no order.
func (b *RoundRobin) Ejections() (all []Ejection) {
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	for a, h := range b.registry.healths {
		h.mu.Lock()
		if h.ejectedUntil.Load() != 0 {
			e := Endpoint{Host: a.place.Host, Path: a.place.Path, Addr: a.place.Addr}
			all = append(all, Ejection{Network: a.network, Endpoint: e, Cause: h.cause, InARow: h.ejections,
				Quick: h.quick, CheckFailed: h.checks.decide()})
		}
		h.mu.Unlock()
	}
	return all
}

// SetEjections ejects addresses that another process has found to fail. Call SetEjections before the first update. The
// addresses are due for a trial at once. Addresses with CheckFailed are due after minEjection, because by then their
// checks have begun.
func (b *RoundRobin) SetEjections(all []Ejection) {
	r := b.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.now()
	for _, e := range all {
		a := address{e.Network, e.Endpoint.Place()}
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
