package proxy

import (
	"slices"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/wheel"
)

// A crowd is the pairs of one loop that relay to one endpoint, so that they are found when it leaves. It is there as long as it has somebody
// in it. What limits them together is its timer's: none of theirs is moved.
type crowd struct {
	timer  wheel.Timer
	loop   *loop
	s      *service // that picked the endpoint last
	member *lb.Member
	first  *loopPair
}

// cutsPerTick bounds how many pairs of a crowd are cut in one go: some milliseconds' work, so that the others are served in between.
const cutsPerTick = 256

// join puts a pair into its endpoint's crowd.
func (l *loop) join(p *loopPair) {
	c := l.crowds[p.endpoint.Place()]
	if c == nil {
		if n := len(l.empty); n > 0 {
			c = l.empty[n-1]
			l.empty = l.empty[:n-1]
		} else {
			c = new(crowd)
		}
		*c = crowd{loop: l, member: p.endpoint}
		c.timer.Owner = c
		l.crowds[p.endpoint.Place()] = c
	}
	c.s = p.s
	p.crowded, p.prev, p.next = true, nil, c.first
	if c.first != nil {
		c.first.prev = p
	}
	c.first = p
	if p.endpoint.Left() {
		c.judge()
	}
}

// part takes a pair out of its crowd.
func (l *loop) part(p *loopPair) {
	if p.next != nil {
		p.next.prev = p.prev
	}
	if p.prev != nil {
		p.prev.next = p.next
	} else if c := l.crowds[p.endpoint.Place()]; p.next != nil {
		c.first = p.next
	} else {
		l.disband(c)
	}
	p.crowded, p.prev, p.next = false, nil, nil
}

// disband ends a crowd that has lost the last one.
func (l *loop) disband(c *crowd) {
	l.wheel.Clear(&c.timer)
	delete(l.crowds, c.member.Place())
	*c = crowd{}
	if len(l.empty) < maxFree {
		l.empty = append(l.empty, c)
	}
}

// judge looks whether the pairs are to be cut, and when.
func (c *crowd) judge() {
	at, ends := c.s.cutOff(c.member)
	if !ends {
		c.loop.wheel.Clear(&c.timer)
		return
	}
	c.loop.wheel.Set(&c.timer, int64(at.Sub(c.loop.began)))
}

// Timeout implements wheel.Owner. The endpoint may be back, and the service may have other ideas by now.
func (c *crowd) Timeout() {
	if !c.s.isCutOff(c.member) {
		c.judge()
		return
	}
	l := c.loop
	for n := 0; c.first != nil; n++ { // the last one takes the crowd along
		if n == cutsPerTick {
			l.wheel.Set(&c.timer, l.now)
			return
		}
		p := c.first
		p.s.at(l.id).endedLeft.Add(1)
		p.cut(pairLeft)
	}
}

// gone implements engine.
func (e *loopEngine) gone(members []*lb.Member) {
	members = slices.Clone(members)
	for _, l := range e.loops {
		l.post(func() {
			for _, m := range members {
				if c := l.crowds[m.Place()]; c != nil {
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
			for _, c := range l.crowds {
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
