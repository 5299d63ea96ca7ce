package proxy

import (
	"slices"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/wheel"
)

// An endpointPairs lists the pairs of one loop that relay to one endpoint, for when the endpoint leaves. One timer cuts
// all of its pairs, so the pairs' own timers stay as they are. An endpointPairs exists while it has a pair.
type endpointPairs struct {
	timer  wheel.Timer
	loop   *eventLoop
	s      *service // service of the pair that joined the list last
	member *lb.Member
	first  *loopPair
}

// cutsPerTick limits how many pairs of an endpoint are cut in one go, which takes some milliseconds. The loop serves
// other pairs in between.
const cutsPerTick = 256

// join adds a pair to the list of its endpoint.
func (l *eventLoop) join(p *loopPair) {
	c := l.byEndpoint[p.endpoint.Key()]
	if c == nil {
		if n := len(l.empty); n > 0 {
			c = l.empty[n-1]
			l.empty = l.empty[:n-1]
		} else {
			c = new(endpointPairs)
		}
		*c = endpointPairs{loop: l, member: p.endpoint}
		c.timer.Owner = c
		l.byEndpoint[p.endpoint.Key()] = c
	}
	c.s = p.s
	p.grouped, p.prev, p.next = true, nil, c.first
	if c.first != nil {
		c.first.prev = p
	}
	c.first = p
	if p.endpoint.Left() {
		c.judge()
	}
}

// part removes a pair from the list of its endpoint.
func (l *eventLoop) part(p *loopPair) {
	if p.next != nil {
		p.next.prev = p.prev
	}
	if p.prev != nil {
		p.prev.next = p.next
	} else if c := l.byEndpoint[p.endpoint.Key()]; p.next != nil {
		c.first = p.next
	} else {
		l.forgetEndpoint(c)
	}
	p.grouped, p.prev, p.next = false, nil, nil
}

// forgetEndpoint recycles c after its last pair has left.
func (l *eventLoop) forgetEndpoint(c *endpointPairs) {
	l.wheel.Clear(&c.timer)
	delete(l.byEndpoint, c.member.Key())
	*c = endpointPairs{}
	if len(l.empty) < maxFree {
		l.empty = append(l.empty, c)
	}
}

// judge sets the timer to the moment when the pairs must be cut, or clears it if they may stay.
func (c *endpointPairs) judge() {
	at, ends := c.s.cutOff(c.member)
	if !ends {
		c.loop.wheel.Clear(&c.timer)
		return
	}
	c.loop.wheel.Set(&c.timer, at.Sub(c.loop.began))
}

// Timeout implements wheel.Owner. Timeout checks first whether the endpoint has returned or the configuration has
// changed.
func (c *endpointPairs) Timeout() {
	if !c.s.isCutOff(c.member) {
		c.judge()
		return
	}
	l := c.loop
	for n := 0; c.first != nil; n++ { // cutting the last pair clears c.first
		if n == cutsPerTick {
			l.wheel.Set(&c.timer, l.now)
			return
		}
		p := c.first
		p.s.at(l.id).endedLeft.Add(1)
		p.cut(endLeft)
	}
}

// endpointsGone implements engine.
func (e *loopEngine) endpointsGone(members []*lb.Member) {
	members = slices.Clone(members)
	for _, l := range e.loops {
		l.post(func() {
			for _, m := range members {
				if c := l.byEndpoint[m.Key()]; c != nil {
					c.judge()
				}
			}
		})
	}
}

// respecified implements engine.
func (e *loopEngine) respecified(s *service) {
	for _, l := range e.loops {
		l.post(func() {
			for _, c := range l.byEndpoint {
				if c.s != s {
					continue
				}
				c.judge()
				for p := c.first; p != nil; p = p.next {
					if p.state == relaying {
						p.schedule()
					}
				}
			}
		})
	}
}
