package daemon

import (
	"sync"

	"github.com/lictor-proxy/lictor/lb"
)

// standbys passes the endpoints that stand by from the Consul clients to what checks them. After a reload the former
// client runs until the new one knows as much. The latest committed client that has reported a service decides for it;
// reports of earlier clients are then ignored.
type standbys struct {
	// See lb.Prober.Standby and healthcheck.Checker.Standby.
	apply func(service string, endpoints []lb.Endpoint)

	mu       sync.Mutex // guards the following, and the fields of all standbyReports
	commits  int
	deciding map[string]*standbyReports // by service
}

// standbyReports takes what one Consul client reports. Safe for concurrent use.
type standbyReports struct {
	all    *standbys
	commit int                      // the number of its commit; 0: not committed yet
	held   map[string][]lb.Endpoint // by service: what was reported before the commit
}

func newStandbys(apply func(service string, endpoints []lb.Endpoint)) *standbys {
	return &standbys{apply: apply, deciding: map[string]*standbyReports{}}
}

// newReports returns the reports of another client. They are held until Commit.
func (s *standbys) newReports() *standbyReports {
	return &standbyReports{all: s, held: map[string][]lb.Endpoint{}}
}

// Report replaces the endpoints of a service that stand by. It is the client's OnStandby.
func (r *standbyReports) Report(service string, endpoints []lb.Endpoint) {
	r.all.mu.Lock()
	defer r.all.mu.Unlock()
	if r.commit == 0 {
		r.held[service] = endpoints
		return
	}
	r.applyLocked(service, endpoints)
}

// applyLocked passes a report on, unless a later client has reported the service.
func (r *standbyReports) applyLocked(service string, endpoints []lb.Endpoint) {
	if d := r.all.deciding[service]; d == nil || d.commit <= r.commit {
		r.all.deciding[service] = r
		r.all.apply(service, endpoints)
	}
}

// Commit puts r in force. Endpoints of services that are not among names stand by no more.
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
