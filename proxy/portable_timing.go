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

// unanswered returns for how long a peer has answered nothing that was sent to it, and which one. Zero: both answer.
func (p *portablePair) unanswered() (waited time.Duration, side int) {
	client, server := connUnanswered(p.client), connUnanswered(p.server)
	if client > server {
		return client, clientSide
	}
	return server, serverSide
}

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

// waitsFor is what a direction waits for.
type waitsFor int8

const (
	source      waitsFor = iota // something to read
	destination                 // room to write
)

// A silence is which directions of a pair have found nothing to do after its time was over. After a standstill of the
// process, deadlines have passed though bytes have arrived, and the direction that is asked first knows only its own.
// Directions are those by the side of their source.
type silence struct {
	since int64   // portablePair.last when nothing was set
	set   [2]bool // the direction has found nothing since
	over  [2]bool // the direction has ended
}

// lookAgain is how soon what seems to be idle is looked at again, for others to find out whether something has come.
const lookAgain = 20 * time.Millisecond

// isSilentLocked reports whether all directions that go on have found nothing to do. It is false if m, which waits for
// w, can go on.
func (p *portablePair) isSilentLocked(m *mover, w waitsFor) bool {
	s := &p.silence
	if last := p.last.Load(); s.since != last {
		s.since, s.set = last, [2]bool{}
	}
	if w == source && connReadable(m.src) || w == destination && connWritable(m.dst) {
		return false
	}
	s.set[p.sideOf(m.src)] = true
	return (s.set[clientSide] || s.over[clientSide]) && (s.set[serverSide] || s.over[serverSide])
}
