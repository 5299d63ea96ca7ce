package endpoints

import (
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// A View shows the endpoints of one service.
type View struct {
	Changed   time.Time      // when the endpoints changed last
	Endpoints []EndpointView // sorted by ID
}

// An EndpointView shows one endpoint.
type EndpointView struct {
	lb.Endpoint           // only the ID is set if Joined is zero
	Joined      time.Time // when the endpoint joined the set; zero if it has left and is still drained
	Drained     time.Time // when an operator drained the endpoint; zero if it is not drained
	Drain       Drain     // by whom, why and until when; zero if the endpoint is not drained
	Forbidden   time.Time // when Verdict was given; zero if the Judge allows clients
	Verdict     cycles.Verdict
}

// Known reports whether a service has a set, which may be empty.
func (s *Sets) Known(service string) bool {
	one := s.lookUp(service)
	if one == nil {
		return false
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.known
}

// View returns the endpoints of a service; it returns false if the service has no set. View does not wait for calls of
// next.
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
		shown := EndpointView{Endpoint: e, Joined: one.joined[i], Forbidden: b.since, Verdict: b.Verdict}
		if d := one.drained[e.ID]; d != nil {
			shown.Drained, shown.Drain = d.since, d.Drain
		}
		v.Endpoints = append(v.Endpoints, shown)
	}
	for id, d := range one.drained {
		if _, there := find(one.endpoints, id); !there {
			gone := EndpointView{Endpoint: lb.Endpoint{ID: id}, Drained: d.since, Drain: d.Drain}
			v.Endpoints = append(v.Endpoints, gone)
		}
	}
	slices.SortFunc(v.Endpoints, func(a, b EndpointView) int { return byID(a.Endpoint, b.Endpoint) })
	return v, true
}
