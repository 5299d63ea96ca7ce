package lb

import "time"

// This file makes the clients of a service that has lost its last endpoint wait for the next one, see
// Options.EmptyWait.
//
// A service is empty when its set has no endpoints. Ejected endpoints are still in the set: when all endpoints are
// ejected, picks ignore ejections, and clients do not wait.

// emptySince returns when the service became empty, from its states before and after an update. emptySince returns zero
// if next has endpoints, or if the service never had any.
func emptySince(before, next *state) time.Time {
	switch {
	case !next.known || len(next.members) > 0:
		return time.Time{}
	case len(before.members) > 0:
		return time.Now()
	}
	return before.emptied
}

// emptyWait returns how much longer clients wait for the first endpoint. A result of zero means that clients do not
// wait.
func (st *state) emptyWait() time.Duration {
	if st.emptied.IsZero() || st.options.EmptyWait <= 0 {
		return 0
	}
	return max(0, st.options.EmptyWait-time.Since(st.emptied))
}

// full returns the error of a pick that exceeds a limit of open uses. If the service has no endpoints, the error is not
// ErrFull, because the limit is not the reason.
func (st *state) full() error {
	if len(st.members) == 0 {
		return st.none(ErrMissingEndpoints)
	}
	return ErrFull
}

// none returns the error of a failed pick, which is err. If the client may wait for the first endpoint, none returns
// ErrFull instead.
func (st *state) none(err error) error {
	if err == ErrMissingEndpoints && st.emptyWait() > 0 {
		return ErrFull
	}
	return err
}

// watchEmptyLocked sets a timer for the end of EmptyWait. The timer refuses the clients that wait for the first
// endpoint.
func (g *group) watchEmptyLocked(st *state) {
	if g.emptyTimer != nil {
		g.emptyTimer.Stop()
		g.emptyTimer = nil
	}
	if rest := st.emptyWait(); rest > 0 {
		g.emptyTimer = time.AfterFunc(rest, g.serveQueue)
	}
}

// Emptied returns for how long each service has been empty, by name. Services that never had endpoints are left out.
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

// SetEmptied sets for how long services have been empty, as another process knew. SetEmptied does nothing to unknown
// services and to services with endpoints.
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
