package lb

import (
	"math"
	"time"
)

// A Choice is an endpoint that a pick for a new client may return.
type Choice struct {
	Member *Member
	Weight int // share of the new clients, relative to the other Choices; at least 1
}

// Choices is what picks for new clients of a service may return at one moment. It is for a path that picks endpoints
// without asking the balancer.
type Choices struct {
	// Choices has each endpoint that may be picked, in the order of the service. If it is empty, clients need the
	// balancer, which lets them wait or refuses them.
	Choices []Choice

	// Next is the time after which the Choices should be read again, because a slow start goes on or an ejected
	// endpoint may be tried. Zero means that they change only when the NotifyChoices callback says so.
	Next time.Duration

	// Due says that an ejected endpoint may be tried now, see Prober.TryEjected.
	Due bool
}

const (
	// choicesScale is the Weight of the Choice with the largest share, if shares are not whole numbers.
	choicesScale = 100

	// choicesSteps is the number of steps in which Choices follow a slow start.
	choicesSteps = 20
)

// Choices returns the endpoints of a service that may serve new clients now. Ejected endpoints are left out, unless the
// service ignores ejections. A slow start and a preference for near endpoints change the weights. Limits, stickiness
// and the policy are not looked at. The result is empty for an unknown service.
//
// The Members are not in use, so Done must not be called. They take the reports Connected, Reached and Failed.
func (b *RoundRobin) Choices(service string) Choices {
	v, ok := b.services.Load(service)
	if !ok {
		return Choices{}
	}
	return v.(*group).choices()
}

// NotifyChoices sets the callback for changes. The balancer calls f with the name of a service when its Choices may
// have changed: after an update, an ejection, the end of one, or new Options. f must not block and must not call the
// balancer. A nil f removes the callback.
func (b *RoundRobin) NotifyChoices(f func(service string)) {
	if f == nil {
		b.onChoices.Store(nil)
		return
	}
	b.onChoices.Store(&f)
}

// choicesChanged calls the NotifyChoices callback, if there is one.
func (g *group) choicesChanged() {
	if f := g.balancer.onChoices.Load(); f != nil {
		(*f)(g.name)
	}
}

func (g *group) choices() (c Choices) {
	st := g.state.Load()
	q := query{now: g.registry.clock.now(), panicking: g.panicking.Load()}
	if end := g.slowStartEnd.Load(); q.now < end {
		q.slowStart = st.options.SlowStart
		g.refreshShares(st, q.now)
		c.Next = max(q.slowStart/choicesSteps, sharesEvery)
	} else if end != 0 {
		g.endSlowStart(st, end)
	}
	if due := g.nextDue.Load(); due != distantFuture && !q.panicking {
		if c.Due = due <= q.now; !c.Due && (c.Next == 0 || due.sub(q.now) < c.Next) {
			c.Next = due.sub(q.now)
		}
	}
	c.Choices = st.choices(&q)
	return c
}

// choices returns the members that the query allows, with their weights.
func (st *state) choices(q *query) []Choice {
	shares := st.sharesByZone(q)
	if shares == nil {
		shares = st.sharesByWeight(q)
	}
	most := 0.0
	for _, share := range shares {
		most = max(most, share)
	}
	scale := choicesScale / most
	if st.near == nil && q.slowStart == 0 {
		scale = 1 // the shares are the weights
	}
	choices := make([]Choice, 0, len(st.members))
	for i, share := range shares {
		if share > 0 {
			choices = append(choices, Choice{st.members[i], max(1, int(math.Round(share*scale)))})
		}
	}
	return choices
}

// sharesByWeight returns the weight of each member that counts now. The weight of an ejected member is zero.
func (st *state) sharesByWeight(q *query) []float64 {
	shares := make([]float64, len(st.members))
	for i, m := range st.members {
		if q.healthy(m) {
			shares[i] = float64(m.Weight) * q.slowShare(m)
		}
	}
	return shares
}

// sharesByZone returns the share of each member if near members are preferred now, see nearby. It returns nil if all
// members are alike.
func (st *state) sharesByZone(q *query) []float64 {
	if st.near == nil {
		return nil
	}
	stay := float64(st.near.share.Load()) / wholeShare
	if stay == 0 {
		return nil
	}
	shares, near, far := st.sharesByWeight(q), 0.0, 0.0
	for i, m := range st.members {
		if m.Near {
			near += shares[i]
		} else {
			shares[i] *= m.farPart()
			far += shares[i]
		}
	}
	switch {
	case near == 0: // the near members have just been ejected
		return nil
	case far == 0:
		stay = 1
	}
	for i, m := range st.members {
		if m.Near {
			shares[i] *= stay / near
		} else if far > 0 {
			shares[i] *= (1 - stay) / far
		}
	}
	return shares
}

// trial begins a use of an ejected endpoint that is due for a trial. trial returns nil if none is due.
func (g *group) trial() *Member {
	st := g.state.Load()
	if g.panicking.Load() {
		return nil
	}
	q := query{maxOpen: int64(st.options.MaxPerEndpoint)}
	m := g.pickTrial(&q)
	if m == nil || !g.claim(st, m) {
		return nil
	}
	return m
}

// TryEjected tries the ejected endpoints of a service that are due for it. It is for a service whose clients do not ask
// the balancer, so that no client makes the trial, see Choices. TryEjected does not wait. After Close it does nothing.
func (p *Prober) TryEjected(service string) {
	v, ok := p.balancer.services.Load(service)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed {
		m := v.(*group).trial()
		if m == nil {
			return
		}
		p.wg.Go(func() { p.tryEjected(service, m) })
	}
}

// tryEjected makes the trial of m, as a check does.
func (p *Prober) tryEjected(service string, m *Member) {
	defer m.Done()
	select {
	case p.slots <- struct{}{}:
	case <-p.ending.Done():
		return
	}
	defer func() { <-p.slots }()
	if c, checked := p.checkOf(service); checked || m.health.address.network == TCP {
		if !checked {
			c.Timeout = standbyTimeout
		}
		p.probeStandby(p.ending, service, m, c)
	}
}
