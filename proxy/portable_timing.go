package proxy

import "time"

// timingLocked returns what time means for the pair now. Its clock began with the pair.
func (p *portablePair) timingLocked() timing {
	a := p.service.aging.Load()
	return timing{
		instant: time.Since(p.began), last: time.Duration(p.last.Load()), silence: p.limits.silence(p.ends),
		old: a.oldAt(0, p.began, p.seed), leeway: a.grace, asked: p.asked.Load(), ended: p.ends,
	}
}

// unsentBytes is how many bytes are on their way to both peers.
func (p *portablePair) unsentBytes() int { return connUnsent(p.client) + connUnsent(p.server) }

// isTakenLocked reports whether a peer has taken something since the last call.
func (p *portablePair) isTakenLocked() bool { return p.unsent.moves(p.unsentBytes()) }

// isSettled reports whether all that was written to the peers has arrived.
func (p *portablePair) isSettled() bool { return p.unsentBytes() == 0 }

// reschedule has the pair look at what limits it anew.
func (p *portablePair) reschedule() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closing {
		p.deadlinesLocked()
	}
}
