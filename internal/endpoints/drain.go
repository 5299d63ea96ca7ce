package endpoints

import (
	"errors"
	"fmt"
	"time"
)

// ErrLastUsable says that a drain would leave a service without an endpoint for new clients. Sets.Drain returns it,
// wrapped.
var ErrLastUsable = errors.New("no other endpoint of the service gets clients")

// An Order is an operator's wish to drain an endpoint.
type Order struct {
	By     string        // the operator; empty if unknown
	Reason string        // the operator's reason; empty if none was given
	For    time.Duration // how long the drain lasts; if not positive, until Undrain
	Force  bool          // drain the endpoint even if no other one of the service gets clients

	// Failing has the IDs of the service's endpoints that get no clients because they fail, such as ejected ones.
	Failing map[string]bool
}

// A Drain describes why an endpoint is drained. The zero Drain has no reason and no end.
type Drain struct {
	By     string
	Reason string
	Until  time.Time // when the drain ends by itself; zero if only Undrain ends it
}

// A drain is the Drain of one endpoint of a set.
type drain struct {
	Drain
	since time.Time
	end   *time.Timer // ends the drain; nil if only Undrain ends it
}

// Drain keeps new clients away from an endpoint until Undrain or until the order's time is over. The endpoint stays
// drained even if it leaves its set and returns. Open connections continue. A second Drain of the endpoint replaces the
// operator, the reason and the end.
//
// When Drain returns, the next sink has the change. If an update of the service is being applied at the same moment,
// that update carries the change instead. Drain returns an error if the endpoint does not exist, and ErrLastUsable.
func (s *Sets) Drain(service, endpoint string, o Order) (Drain, error) {
	d := &drain{Drain: Drain{By: o.By, Reason: o.Reason}, since: time.Now()}
	until := "until it is undrained"
	if o.For > 0 {
		d.Until, until = d.since.Add(o.For), fmt.Sprintf("for %v", o.For)
	}
	e := Event{
		Kind: KindDrained, Service: service, Endpoint: endpoint,
		Text: fmt.Sprintf("%s gets no new clients %s%s", endpoint, until, credit("drained", o.By, o.Reason)),
	}
	return d.Drain, s.change(e, func(one *set) (bool, error) {
		if _, found := find(one.endpoints, endpoint); !found {
			return false, fmt.Errorf("service %q has no endpoint %q", service, endpoint)
		}
		former := one.drained[endpoint]
		if former == nil && !o.Force && !one.canSpare(endpoint, o.Failing) {
			return false, fmt.Errorf("%s cannot be drained: %w; undrain another one first, or drain it with force",
				endpoint, ErrLastUsable)
		}
		if former != nil {
			d.since = former.since
			if former.Drain == d.Drain {
				return false, nil
			}
		}
		s.drainLocked(one, endpoint, d)
		return true, nil
	})
}

// credit returns the part of an event's text that names the operator and the reason.
func credit(done, by, reason string) string {
	text := ""
	if by != "" {
		text = "; " + done + " by " + by
	}
	if reason != "" {
		text += ": " + reason
	}
	return text
}

// canSpare reports whether new clients still have an endpoint if the one with this ID is drained. An endpoint that gets
// no clients anyway can be spared. The caller must hold mu.
func (one *set) canSpare(id string, failing map[string]bool) bool {
	if _, forbidden := one.forbidden[id]; forbidden {
		return true
	}
	for _, e := range one.serving().Endpoints {
		if e.ID != id && !failing[e.ID] {
			return true
		}
	}
	return false
}

// drainLocked stores d, and arranges its end. The caller must hold one.mu.
func (s *Sets) drainLocked(one *set, endpoint string, d *drain) {
	one.undrain(endpoint)
	if one.drained == nil {
		one.drained = map[string]*drain{}
	}
	one.drained[endpoint] = d
	if !d.Until.IsZero() {
		d.end = time.AfterFunc(time.Until(d.Until), func() { s.drainOver(one.service, endpoint, d) })
	}
}

// undrain forgets the drain of an endpoint, if there is one. The caller must hold mu.
func (one *set) undrain(endpoint string) {
	if d := one.drained[endpoint]; d != nil && d.end != nil {
		d.end.Stop()
	}
	delete(one.drained, endpoint)
}

// undrainAll forgets all drains. The caller must hold mu.
func (one *set) undrainAll() {
	for id := range one.drained {
		one.undrain(id)
	}
}

// drainOver ends a drain whose time is over. drainOver does nothing if the drain was ended or replaced meanwhile.
func (s *Sets) drainOver(service, endpoint string, d *drain) {
	text := endpoint + " gets clients again, the time of its drain is over" + credit("drained", d.By, d.Reason)
	e := Event{Kind: KindUndrained, Service: service, Endpoint: endpoint, Text: text}
	_ = s.change(e, func(one *set) (bool, error) { // an unknown service has no drains
		if one.drained[endpoint] != d {
			return false, nil
		}
		one.undrain(endpoint)
		return true, nil
	})
}

// Undrain ends a Drain. The event names the operator and the reason, which may be empty. Undrain returns an error if
// the endpoint is not drained.
func (s *Sets) Undrain(service, endpoint, by, reason string) error {
	e := Event{
		Kind: KindUndrained, Service: service, Endpoint: endpoint,
		Text: endpoint + " gets clients again" + credit("undrained", by, reason),
	}
	return s.change(e, func(one *set) (bool, error) {
		if one.drained[endpoint] == nil {
			return false, fmt.Errorf("endpoint %q of service %q is not drained", endpoint, service)
		}
		one.undrain(endpoint)
		return true, nil
	})
}

// change changes the set of e's service by calling the function. If the function reports a change, the next sink and
// then events receive it.
func (s *Sets) change(e Event, change func(*set) (changed bool, err error)) error {
	one := s.lookUp(e.Service)
	if one == nil {
		return unknown(e.Service)
	}
	one.turn.Lock()
	defer s.tellInTurn(one)
	one.mu.Lock()
	if !one.known {
		one.mu.Unlock()
		return unknown(e.Service)
	}
	changed, err := change(one)
	one.untold = one.untold || changed
	one.mu.Unlock()
	if changed {
		s.tellOnce(one)
		s.events.Add(e)
	}
	return err
}

func unknown(service string) error { return fmt.Errorf("service %q is not known", service) }
