package endpoints

import (
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// A View is what is known of the endpoints of one service.
type View struct {
	Changed   time.Time      // when they were last different from before
	Endpoints []EndpointView // sorted by ID
}

// An EndpointView is what is known of one endpoint.
type EndpointView struct {
	lb.Endpoint           // has only an ID if Joined is zero
	Joined      time.Time // since when it is in the set; zero: it has left, and is still drained
	Drained     time.Time // since when an operator drains it; zero: nobody does
	Forbidden   time.Time // since when Verdict stands; zero: the Judge allows it clients
	Verdict     cycles.Verdict
}

// Known reports whether the endpoints of a service are known. It may be known that there are none.
func (s *Sets) Known(service string) bool {
	one := s.lookUp(service)
	if one == nil {
		return false
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.known
}

// View returns what is known of the endpoints of a service; false if nothing is. It does not wait while next is told.
func (s *Sets) View(service string) (v View, known bool) {
	one := s.lookUp(service)
	if one == nil {
		return v, false
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	if !one.known {
		return v, false
	}
	v = View{Changed: one.changed, Endpoints: make([]EndpointView, 0, len(one.endpoints))}
	for i, e := range one.endpoints {
		b := one.forbidden[e.ID]
		v.Endpoints = append(v.Endpoints, EndpointView{
			Endpoint: e, Joined: one.joined[i], Drained: one.drained[e.ID], Forbidden: b.since, Verdict: b.Verdict,
		})
	}
	for id, since := range one.drained {
		if _, there := find(one.endpoints, id); !there {
			v.Endpoints = append(v.Endpoints, EndpointView{Endpoint: lb.Endpoint{ID: id}, Drained: since})
		}
	}
	slices.SortFunc(v.Endpoints, func(a, b EndpointView) int { return byID(a.Endpoint, b.Endpoint) })
	return v, true
}
