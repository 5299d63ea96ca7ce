package endpoints

import (
	"maps"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An ExportedDrain is the drain of an endpoint, for another process.
type ExportedDrain struct {
	Service  string        `json:"service"`
	Endpoint string        `json:"endpoint"`
	By       string        `json:"by,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Since    time.Time     `json:"since"`          // if zero, Import uses its own time
	Left     time.Duration `json:"left,omitempty"` // until the drain ends; zero if only Undrain ends it
}

// Export returns all sets, complete and sorted by service, and the drains, sorted by service and endpoint. Another
// process continues with them.
func (s *Sets) Export() (sets []lb.Endpoints, drains []ExportedDrain) {
	for _, name := range s.services() {
		one := s.lookUp(name)
		if one == nil {
			continue
		}
		one.mu.Lock()
		if one.known {
			sets = append(sets, lb.Endpoints{Service: name, Endpoints: one.endpoints})
		}
		for _, id := range slices.Sorted(maps.Keys(one.drained)) {
			d := one.drained[id]
			e := ExportedDrain{Service: name, Endpoint: id, By: d.By, Reason: d.Reason, Since: d.since}
			if !d.Until.IsZero() {
				e.Left = max(time.Until(d.Until), 1) // a drain that is over now ends in the other process
			}
			drains = append(drains, e)
		}
		one.mu.Unlock()
	}
	return sets, drains
}

// Import starts with the sets and drains that another process has exported. Import ignores drains of services without
// a set.
func (s *Sets) Import(sets []lb.Endpoints, drains []ExportedDrain) {
	s.enqueue(sets)
	services := servicesOf(sets)
	own := s.take(services, NewEvents()) // the other process has the events
	now := time.Now()
	for _, e := range drains {
		if one := s.lookUp(e.Service); one != nil {
			s.importDrain(one, e, now)
		}
	}
	s.tell(own, s.rejudge(services))
}

func (s *Sets) importDrain(one *set, e ExportedDrain, now time.Time) {
	d := &drain{Drain: Drain{By: e.By, Reason: e.Reason}, since: e.Since}
	if d.since.IsZero() {
		d.since = now
	}
	if e.Left > 0 {
		d.Until = now.Add(e.Left)
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.known {
		s.drainLocked(one, e.Endpoint, d)
	}
}
