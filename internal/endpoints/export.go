package endpoints

import (
	"maps"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// Export returns all sets, complete and sorted by service, and the sorted IDs of drained endpoints. Another process
// continues with them.
func (s *Sets) Export() (sets []lb.Endpoints, drained map[string][]string) {
	drained = map[string][]string{}
	for _, name := range s.services() {
		one := s.lookUp(name)
		if one == nil {
			continue
		}
		one.mu.Lock()
		if one.known {
			sets = append(sets, lb.Endpoints{Service: name, Endpoints: one.endpoints})
		}
		if len(one.drained) > 0 {
			drained[name] = slices.Sorted(maps.Keys(one.drained))
		}
		one.mu.Unlock()
	}
	return sets, drained
}

// Import starts with the sets and drains that another process has exported. Import ignores drained endpoints of
// services without a set.
func (s *Sets) Import(sets []lb.Endpoints, drained map[string][]string) {
	s.enqueue(sets)
	services := servicesOf(sets)
	own := s.take(services)
	now := time.Now()
	for _, one := range own {
		one.mu.Lock()
		for _, id := range drained[one.service] {
			if one.drained == nil {
				one.drained = map[string]time.Time{}
			}
			one.drained[id] = now
		}
		one.mu.Unlock()
	}
	s.tell(own, s.rejudge(services))
}
