package healthcheck

import (
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// A Result is what this process knows about an endpoint, in a form for the next process.
type Result struct {
	Service  string
	Endpoint lb.Endpoint   // only ID and address
	Failure  string        `json:",omitempty"` // why the endpoint gets no clients; empty if it gets clients
	Silent   bool          `json:",omitempty"` // the failure is that the endpoint does not answer
	Passed   bool          `json:",omitempty"` // the endpoint has passed a check
	Ago      time.Duration `json:",omitempty"` // if Passed: time since the last passed check
}

// Results returns the results of all checked endpoints, in no order.
func (c *Checker) Results() (all []Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.services {
		for _, t := range s.targets {
			r := Result{Service: s.name, Endpoint: placeOf(s.name, t.endpoint).endpoint, Silent: t.silent}
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

// SetResults stores the Results of the former process. Each applies until the first check of its endpoint in this
// process. Call SetResults before Apply.
func (c *Checker) SetResults(all []Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range all {
		c.before[placeOf(r.Service, r.Endpoint)] = r
	}
}

// A place identifies an endpoint of a service.
type place struct {
	service  string
	endpoint lb.Endpoint // only ID and address
}

func placeOf(service string, e lb.Endpoint) place {
	return place{service, lb.Endpoint{ID: e.ID, Host: e.Host, Path: e.Path, Addr: e.Addr}}
}

// inherit applies the former process's result to t, if there is one. The caller must hold mu.
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
