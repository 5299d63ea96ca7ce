package lb

// A UseKey identifies uses that are counted together: the uses of one endpoint of a service at one address. A UseKey
// with an empty Address stands for the clients in the queue of the service.
type UseKey struct{ ID, Address string }

func (m *Member) useKey() UseKey { return UseKey{m.ID, m.Address()} }

// Uses returns the number of uses of each endpoint of each service, and the number of waiting clients, by service name.
// Foreign uses and zero counts are left out. Endpoints that have left the service are included while they have uses.
//
// While clients wait, a new use may replace an ended use at once. A lower count is therefore not final if the result
// also shows waiting clients.
func (b *RoundRobin) Uses() map[string]map[UseKey]int64 {
	all := map[string]map[UseKey]int64{}
	b.services.Range(func(name, g any) bool {
		if uses := g.(*group).uses(); len(uses) > 0 {
			all[name.(string)] = uses
		}
		return true
	})
	return all
}

func (g *group) uses() map[UseKey]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	uses := map[UseKey]int64{}
	// Read the queue first: a client leaves the queue after its use is counted.
	if n := g.queue.waiting.Load(); n > 0 {
		uses[UseKey{}] = n
	}
	for _, m := range g.former {
		if n := m.open.Load(); n > 0 {
			uses[m.useKey()] += n
		}
	}
	for _, m := range g.state.Load().members {
		if m.open.Load() == 0 {
			continue
		}
		if n := m.open.Load() - g.foreign[m.useKey()]; n > 0 {
			uses[m.useKey()] += n
		}
	}
	return uses
}

// SetForeign replaces the foreign uses of a service, which are uses by other processes that serve the same service.
// Foreign uses count for limits, policies and snapshots like uses of this process, but have no Member. Foreign clients
// in the queue take slots of the queue, but this process does not serve them. SetForeign keeps a reference to uses, so
// uses must not change. SetForeign does nothing if the service was neither configured nor updated.
func (b *RoundRobin) SetForeign(service string, uses map[UseKey]int64) {
	if v, ok := b.services.Load(service); ok {
		v.(*group).setForeign(uses)
	}
}

func (g *group) setForeign(uses map[UseKey]int64) {
	g.mu.Lock()
	old := g.foreign
	g.foreign = uses
	g.queue.foreign.Store(uses[UseKey{}])
	st := g.state.Load()
	for i, m := range st.members {
		key := m.useKey()
		if change := uses[key] - old[key]; change != 0 {
			m.open.Add(change)
			st.roster.mark(i)
		}
	}
	g.open.Add(total(uses) - total(old))
	g.mu.Unlock()
	g.serveQueue() // a limit may have more free uses now
}

// total returns the number of uses, without the waiting clients.
func total(uses map[UseKey]int64) (n int64) {
	for key, count := range uses {
		if key != (UseKey{}) {
			n += count
		}
	}
	return n
}

// NotifyEnded sets the callback for the end of a use, and for a client that leaves a queue. The callback must not block
// and must not call the balancer, because it runs while clients are served. A nil callback removes the current one.
func (b *RoundRobin) NotifyEnded(f func()) {
	if f == nil {
		b.onEnded.Store(nil)
		return
	}
	b.onEnded.Store(&f)
}

// ended calls the NotifyEnded callback, if there is one.
func (b *RoundRobin) ended() {
	if f := b.onEnded.Load(); f != nil {
		(*f)()
	}
}
