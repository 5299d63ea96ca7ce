package proxy

import (
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An endpointIndex finds the pairs of an endpoint. The portable engine uses the index when an endpoint leaves.
type endpointIndex struct {
	mu  sync.Mutex
	all map[lb.MemberKey]*portableEndpointPairs // only endpoints that have pairs
}

// portableEndpointPairs holds the pairs that relay to one endpoint. The lock of endpointIndex guards it.
type portableEndpointPairs struct {
	s      *service // the last service that picked the endpoint
	member *lb.Member
	pairs  map[*portablePair]bool
	timer  *time.Timer // cuts the pairs; nil if they may stay
}

// join adds a pair to those of its endpoint.
func (cs *endpointIndex) join(p *portablePair) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.all[p.endpoint.Key()]
	if c == nil {
		c = &portableEndpointPairs{member: p.endpoint, pairs: map[*portablePair]bool{}}
		cs.all[p.endpoint.Key()] = c
	}
	c.s = p.service
	c.pairs[p] = true
	if p.endpoint.Left() {
		cs.judgeLocked(c)
	}
}

// part removes a pair from those of its endpoint.
func (cs *endpointIndex) part(p *portablePair) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.all[p.endpoint.Key()]
	if delete(c.pairs, p); len(c.pairs) == 0 {
		c.stop()
		delete(cs.all, p.endpoint.Key())
	}
}

// judgeLocked sets the timer to the time at which the pairs must be cut. judgeLocked stops the timer if the pairs may
// stay.
func (cs *endpointIndex) judgeLocked(c *portableEndpointPairs) {
	c.stop()
	at, ends := c.s.cutOff(c.member)
	if !ends {
		return
	}
	c.timer = time.AfterFunc(time.Until(at), func() { cs.timeout(c) })
}

func (c *portableEndpointPairs) stop() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// timeout cuts the pairs, unless the endpoint has come back or the service's settings have changed.
func (cs *endpointIndex) timeout(c *portableEndpointPairs) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if !c.s.isCutOff(c.member) {
		return // whatever has changed the rules calls judgeLocked
	}
	for p := range c.pairs {
		p.cut(endLeft, nil)
	}
}

// endpointsGone implements engine.
func (e *portable) endpointsGone(members []*lb.Member) {
	e.byEndpoint.mu.Lock()
	defer e.byEndpoint.mu.Unlock()
	for _, m := range members {
		if c := e.byEndpoint.all[m.Key()]; c != nil {
			e.byEndpoint.judgeLocked(c)
		}
	}
}

// respecified implements engine.
func (e *portable) respecified(s *service) {
	e.byEndpoint.mu.Lock()
	defer e.byEndpoint.mu.Unlock()
	for _, c := range e.byEndpoint.all {
		if c.s != s {
			continue
		}
		e.byEndpoint.judgeLocked(c)
		for p := range c.pairs {
			p.reschedule()
		}
	}
}
