package endpoints

import (
	"fmt"
	"time"
)

// Drain keeps new clients away from an endpoint until Undrain, even if the endpoint leaves its set and returns. Open
// connections continue. When Drain returns, the next sink has the change. If an update of the service is being applied
// at the same moment, that update carries the change instead. Drain returns an error if the endpoint does not exist.
func (s *Sets) Drain(service, endpoint string) error {
	e := Event{
		Kind: KindDrained, Service: service, Endpoint: endpoint,
		Text: endpoint + " gets no new clients until it is undrained",
	}
	return s.change(e, func(one *set) (bool, error) {
		if _, found := find(one.endpoints, endpoint); !found {
			return false, fmt.Errorf("service %q has no endpoint %q", service, endpoint)
		}
		if _, already := one.drained[endpoint]; already {
			return false, nil
		}
		if one.drained == nil {
			one.drained = map[string]time.Time{}
		}
		one.drained[endpoint] = time.Now()
		return true, nil
	})
}

// Undrain ends a Drain. Undrain returns an error if the endpoint is not drained.
func (s *Sets) Undrain(service, endpoint string) error {
	e := Event{Kind: KindUndrained, Service: service, Endpoint: endpoint, Text: endpoint + " gets clients again"}
	return s.change(e, func(one *set) (bool, error) {
		if _, drained := one.drained[endpoint]; !drained {
			return false, fmt.Errorf("endpoint %q of service %q is not drained", endpoint, service)
		}
		delete(one.drained, endpoint)
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
