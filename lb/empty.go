package lb

import "time"

// This is how the clients of a service that has lost its last endpoint wait for the next one, see Options.EmptyWait.
//
// A service is empty when its set is. Endpoints that are ejected are still in the set: when all of them are, ejections
// are ignored, and no client waits.

// emptySince returns since when next is empty, given the state before it. It is zero for a state with endpoints, and
// for a service that never had any.
func emptySince(before, next *state) time.Time {
	switch {
	case !next.known || len(next.members) > 0:
		return time.Time{}
	case len(before.members) > 0:
		return time.Now()
	}
	return before.emptied
}

// emptyWait returns how much longer clients wait for the first endpoint. Zero means that they do not wait.
func (st *state) emptyWait() time.Duration {
	if st.emptied.IsZero() || st.options.EmptyWait <= 0 {
		return 0
	}
	return max(0, st.options.EmptyWait-time.Since(st.emptied))
}

// full is the error of a pick that is over a limit of connections. Without endpoints, that is not the reason.
func (st *state) full() error {
	if len(st.members) == 0 {
		return st.none(ErrMissingEndpoints)
	}
	return ErrFull
}

// none returns err, with which a pick has failed. It returns ErrFull instead if the client may wait for the first
// endpoint.
func (st *state) none(err error) error {
	if err == ErrMissingEndpoints && st.emptyWait() > 0 {
		return ErrFull
	}
	return err
}

// watchEmptyLocked refuses the clients that wait for the first endpoint when EmptyWait is over.
func (g *group) watchEmptyLocked(st *state) {
	if g.emptyTimer != nil {
		g.emptyTimer.Stop()
		g.emptyTimer = nil
	}
	if rest := st.emptyWait(); rest > 0 {
		g.emptyTimer = time.AfterFunc(rest, g.serveQueue)
	}
}

// Emptied returns for how long services have been empty that had endpoints before, by name.
func (b *RoundRobin) Emptied() map[string]time.Duration {
	all := map[string]time.Duration{}
	b.services.Range(func(name, g any) bool {
		if at := g.(*group).state.Load().emptied; !at.IsZero() {
			all[name.(string)] = time.Since(at)
		}
		return true
	})
	return all
}

// SetEmptied says for how long services have been empty, by what another process knew. It does nothing to services that
// have endpoints, or of which nothing is known.
func (b *RoundRobin) SetEmptied(services map[string]time.Duration) {
	for name, since := range services {
		if v, ok := b.services.Load(name); ok {
			v.(*group).setEmptied(since)
		}
	}
}

func (g *group) setEmptied(since time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	st := *g.state.Load()
	if !st.known || len(st.members) > 0 {
		return
	}
	st.emptied = time.Now().Add(-max(0, since))
	g.swapLocked(&st)
}
