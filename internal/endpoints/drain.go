package endpoints

import (
	"fmt"
	"time"
)

// Drain leaves an endpoint out for new clients until Undrain, even if it leaves its set and returns. Its connections go
// on. It returns when next has been told; but if an update of the service comes at the same moment, next is told with
// that. The error says that there is no such endpoint.
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

// Undrain ends a Drain. The error says that the endpoint is not drained.
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

// change changes the set of e's service. If change says that it has, next is told, and then events.
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
