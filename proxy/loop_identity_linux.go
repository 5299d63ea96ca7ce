package proxy

// This file has the loops' part of identityIndex.

// An identifiedPair is a pair whose client has an identity.
type identifiedPair struct {
	loop *eventLoop
	pair *loopPair // only the loop may read it
	use  generation
	membership
}

// identify lists the pair if its client has an identity. An error refuses the client. before is what changed has
// returned before the handshake.
func (p *loopPair) identify(before uint64) (err error) {
	peer := p.clientTLS()
	if peer.Identity() == "" {
		return nil
	}
	c := &identifiedPair{loop: p.loop, pair: p, use: p.thisUse()}
	if c.membership, err = p.s.enlist(c, peer, before); err == nil {
		p.tls.identified = c
	}
	return err
}

// delist undoes identify.
func (p *loopPair) delist() {
	if c := p.tls.identified; c != nil {
		p.s.delist(c, c.membership)
	}
}

// forbid implements identifiedConn, in the loop.
func (c *identifiedPair) forbid(why error) {
	if c.use.isOver() {
		return
	}
	p := c.pair
	p.s.at(c.loop.id).endedIntention.Add(1)
	p.reason, p.errno, p.tls.cause = endIntention, 0, why // even if a side had ended before
	p.cut(endIntention)
}

// forbid implements engine.
func (e *loopEngine) forbid(all []identifiedConn, why error) {
	byLoop := make(map[*eventLoop][]*identifiedPair, len(e.loops))
	for _, one := range all {
		c := one.(*identifiedPair)
		byLoop[c.loop] = append(byLoop[c.loop], c)
	}
	for l, some := range byLoop {
		l.forbid(some, why)
	}
}

// forbid resets the pairs, cutsPerTick of them in a turn.
func (l *eventLoop) forbid(all []*identifiedPair, why error) {
	l.post(func() {
		n := min(len(all), cutsPerTick)
		for _, c := range all[:n] {
			c.forbid(why)
		}
		if n < len(all) {
			l.forbid(all[n:], why)
		}
	})
}
