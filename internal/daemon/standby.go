package daemon

import (
	"sync"

	"github.com/lictor-proxy/lictor/lb"
)

// standbys forwards standby endpoints from the Consul clients to the health checkers. After a reload, the former client
// runs until the new client has as many sets. The latest committed client that has reported a service decides for it;
// reports of earlier clients are ignored.
type standbys struct {
	// apply is called with a service's standby endpoints. See lb.Prober.Standby and healthcheck.Checker.Standby.
	apply func(service string, endpoints []lb.Endpoint)

	mu       sync.Mutex // guards the fields below, and the fields of all standbyReports
	commits  int
	deciding map[string]*standbyReports // by service
}

// standbyReports receives the reports of one Consul client. standbyReports is safe for concurrent use.
type standbyReports struct {
	all    *standbys
	commit int                      // number of the commit; 0 before it
	held   map[string][]lb.Endpoint // reports before the commit, by service
}

func newStandbys(apply func(service string, endpoints []lb.Endpoint)) *standbys {
	return &standbys{apply: apply, deciding: map[string]*standbyReports{}}
}

// newReports returns the reports of another client. The reports are held until Commit.
func (s *standbys) newReports() *standbyReports {
	return &standbyReports{all: s, held: map[string][]lb.Endpoint{}}
}

// Report replaces the standby endpoints of a service. Report is the client's OnStandby.
func (r *standbyReports) Report(service string, endpoints []lb.Endpoint) {
	r.all.mu.Lock()
	defer r.all.mu.Unlock()
	if r.commit == 0 {
		r.held[service] = endpoints
		return
	}
	r.applyLocked(service, endpoints)
}

// applyLocked forwards a report, unless a later client has reported the service.
func (r *standbyReports) applyLocked(service string, endpoints []lb.Endpoint) {
	if d := r.all.deciding[service]; d == nil || d.commit <= r.commit {
		r.all.deciding[service] = r
		r.all.apply(service, endpoints)
	}
}

// Commit puts r in force. Services that are not in names have no standby endpoints any more.
func (r *standbyReports) Commit(names []string) {
	s := r.all
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	r.commit = s.commits
	stay := map[string]bool{}
	for _, name := range names {
		stay[name] = true
	}
	for service := range s.deciding {
		if !stay[service] {
			r.applyLocked(service, nil)
		}
	}
	for service, endpoints := range r.held {
		r.applyLocked(service, endpoints)
	}
	r.held = nil
}
