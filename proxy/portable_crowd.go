package proxy

import (
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// crowds are the pairs of the portable engine by their endpoints, so that they are found when one leaves.
type crowds struct {
	mu  sync.Mutex
	all map[lb.Place]*portableCrowd // those with somebody in them
}

// A portableCrowd is the pairs that relay to one endpoint. The lock of crowds guards it.
type portableCrowd struct {
	s      *service // that picked the endpoint last
	member *lb.Member
	pairs  map[*pair]bool
	timer  *time.Timer // nil: they are not to be cut
}

// join puts a pair into its endpoint's crowd.
func (cs *crowds) join(p *pair) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.all[p.endpoint.Place()]
	if c == nil {
		c = &portableCrowd{member: p.endpoint, pairs: map[*pair]bool{}}
		cs.all[p.endpoint.Place()] = c
	}
	c.s = p.service
	c.pairs[p] = true
	if p.endpoint.Left() {
		cs.judgeLocked(c)
	}
}

// part takes a pair out of its crowd.
func (cs *crowds) part(p *pair) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.all[p.endpoint.Place()]
	if delete(c.pairs, p); len(c.pairs) == 0 {
		c.stop()
		delete(cs.all, p.endpoint.Place())
	}
}

// judgeLocked looks whether the pairs are to be cut, and when.
func (cs *crowds) judgeLocked(c *portableCrowd) {
	c.stop()
	at, ends := c.s.cutOff(c.member)
	if !ends {
		return
	}
	c.timer = time.AfterFunc(time.Until(at), func() { cs.timeout(c) })
}

func (c *portableCrowd) stop() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// timeout cuts the pairs. The endpoint may be back, and the service may have other ideas by now.
func (cs *crowds) timeout(c *portableCrowd) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if !c.s.isCutOff(c.member) {
		return // who has changed that has judged, or will
	}
	for p := range c.pairs {
		p.cut(ReasonEndpointLeft)
	}
}

// gone implements engine.
func (e *portable) gone(members []*lb.Member) {
	e.crowds.mu.Lock()
	defer e.crowds.mu.Unlock()
	for _, m := range members {
		if c := e.crowds.all[m.Place()]; c != nil {
			e.crowds.judgeLocked(c)
		}
	}
}

// respecified implements engine.
func (e *portable) respecified(s *service) {
	e.crowds.mu.Lock()
	defer e.crowds.mu.Unlock()
	for _, c := range e.crowds.all {
		if c.s != s {
			continue
		}
		e.crowds.judgeLocked(c)
		for p := range c.pairs {
			p.reschedule()
		}
	}
}
