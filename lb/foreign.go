package lb

// A UseKey says which uses are counted together: those of one endpoint of a service at one address. With an empty
// Address it stands for the clients in the queue of the service.
type UseKey struct{ ID, Address string }

func (m *Member) useKey() UseKey { return UseKey{m.ID, m.Address()} }

// Uses returns how many uses each endpoint of each service has, and how many clients wait, by the name of the service.
// Foreign uses and zeros are left out. Endpoints that have left the service are included while they have uses.
//
// While clients wait, a use that has ended may be replaced at once. So a caller should not take a lower count for final
// if the result says that clients of the service wait.
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
	// First the queue: a client leaves it after its use is counted.
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

// SetForeign replaces the foreign uses of a service: those of other processes that serve clients of the same service.
// They count for limits, policies and snapshots like uses of this process, but have no Member. Foreign clients in the
// queue take slots of it, and are not served here. SetForeign keeps a reference to uses, which must not change. It does
// nothing if the service was neither configured nor updated.
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
	g.serveQueue() // there may be more room
}

// total returns the number of uses, without the clients that wait.
func total(uses map[UseKey]int64) (n int64) {
	for key, count := range uses {
		if key != (UseKey{}) {
			n += count
		}
	}
	return n
}

// NotifyEnded sets the callback for the end of a use, and for a client that leaves a queue. The callback must not block
// and must not call the balancer: it is called on the path of the clients. Nil removes it.
func (b *RoundRobin) NotifyEnded(f func()) {
	if f == nil {
		b.onEnded.Store(nil)
		return
	}
	b.onEnded.Store(&f)
}

// ended calls the callback of NotifyEnded.
func (b *RoundRobin) ended() {
	if f := b.onEnded.Load(); f != nil {
		(*f)()
	}
}
