package proxy

import "time"

// timingLocked returns the times of the pair now, as durations since the pair began.
func (p *portablePair) timingLocked() timing {
	a := p.service.aging.Load()
	return timing{
		instant: time.Since(p.began), last: time.Duration(p.last.Load()), silence: p.limits.silence(p.ends),
		old: a.oldAt(0, p.began, p.seed), leeway: a.grace, asked: p.asked.Load(), ended: p.ends,
	}
}

// unsentBytes returns how many bytes sent to both peers are not acknowledged.
func (p *portablePair) unsentBytes() int { return connUnsent(p.client) + connUnsent(p.server) }

// unanswered returns how long a peer has acknowledged nothing of what was sent to it, and which peer. A result of zero
// means that both peers answer.
func (p *portablePair) unanswered() (waited time.Duration, side int) {
	client, server := connUnanswered(p.client), connUnanswered(p.server)
	if client > server {
		return client, clientSide
	}
	return server, serverSide
}

// isTakenLocked reports whether a peer has taken bytes since the last call.
func (p *portablePair) isTakenLocked() bool { return p.unsent.moves(p.unsentBytes()) }

// isSettled reports whether all bytes written to the peers have arrived.
func (p *portablePair) isSettled() bool { return p.unsentBytes() == 0 }

// reschedule makes the pair check its limits anew.
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
	source      waitsFor = iota // the direction waits for bytes to read
	destination                 // the direction waits until its destination accepts bytes
	sourceRoom                  // the direction waits until its source accepts what TLS answers it
)

// A silence records which directions of a pair had nothing to do when their deadline passed. If the process was
// suspended, deadlines pass although bytes have arrived. A direction can see only its own bytes, so both must agree
// that the pair is idle. The index is the side of the direction's source.
type silence struct {
	since int64   // portablePair.last when set was cleared
	set   [2]bool // the direction has had nothing to do since then
	over  [2]bool // the direction has ended
}

// lookAgain is how soon an apparently idle pair is checked again, so that the other direction can see whether bytes
// have come.
const lookAgain = 20 * time.Millisecond

// isSilentLocked reports whether all open directions have had nothing to do. isSilentLocked returns false if m, which
// waits for w, can go on.
func (p *portablePair) isSilentLocked(m *mover, w waitsFor) bool {
	s := &p.silence
	if last := p.last.Load(); s.since != last {
		s.since, s.set = last, [2]bool{}
	}
	if w == source && connReadable(m.src) || w == destination && connWritable(m.dst) ||
		w == sourceRoom && connWritable(m.src) {
		return false
	}
	s.set[p.sideOf(m.src)] = true
	return (s.set[clientSide] || s.over[clientSide]) && (s.set[serverSide] || s.over[serverSide])
}
