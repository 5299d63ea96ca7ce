package healthcheck

import (
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// A Result is what the checks of an endpoint have found, for another process.
type Result struct {
	Service  string
	Endpoint lb.Endpoint   // its ID and address only
	Failure  string        `json:",omitempty"` // why it gets no clients; empty: it gets some
	Silent   bool          `json:",omitempty"` // Failure says that it does not answer
	Passed   bool          `json:",omitempty"` // it has passed a check
	Ago      time.Duration `json:",omitempty"` // if Passed: how long ago the last one was
}

// Results returns what is known of all endpoints that were checked, in no order.
func (c *Checker) Results() (all []Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.services {
		for _, t := range s.targets {
			r := Result{Service: s.name, Endpoint: lb.Endpoint{ID: t.endpoint.ID, Host: t.endpoint.Host,
				Addr: t.endpoint.Addr}, Silent: t.silent}
			if t.verdict != nil && t.verdict.Critical {
				r.Failure = t.verdict.Text
			}
			if !t.passed.IsZero() {
				r.Passed, r.Ago = true, time.Since(t.passed)
			}
			if r.Failure != "" || r.Passed {
				all = append(all, r)
			}
		}
	}
	return all
}

// SetResults takes the Results of the process before. Each holds until the first check of the endpoint here. It is to
// be called before Apply.
func (c *Checker) SetResults(all []Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range all {
		c.before[placeOf(r.Service, r.Endpoint)] = r
	}
}

// A place is that of an endpoint of a service.
type place struct {
	service  string
	endpoint lb.Endpoint // its ID and address only
}

func placeOf(service string, e lb.Endpoint) place {
	return place{service, lb.Endpoint{ID: e.ID, Host: e.Host, Addr: e.Addr}}
}

// inherit has t begin with what the process before has found, if it has found anything. The caller has mu.
func (c *Checker) inherit(t *target) {
	at := placeOf(t.service.name, t.endpoint)
	r, found := c.before[at]
	if !found {
		return
	}
	delete(c.before, at)
	t.verdict, t.silent = nil, r.Silent
	if r.Failure != "" {
		t.verdict = &cycles.Verdict{Reason: Reason, Text: r.Failure, Critical: true}
	}
	if r.Passed {
		t.passed = time.Now().Add(-r.Ago)
	}
}
