package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// timing returns what time means for the pair now.
func (p *loopPair) timing() timing {
	a := p.s.aging.Load()
	return timing{
		instant: p.loop.now, last: p.last, silence: p.limits.silence(int(p.ends)),
		old:    a.oldAt(p.began, p.loop.began, uint64(p.began)+uint64(p.src.Port())<<40),
		leeway: a.grace, asked: p.asked, ended: int(p.ends),
	}
}

// schedule sets the timer for what limits the pair now.
func (p *loopPair) schedule() { p.scheduleWithin(peerLookEvery) }

// scheduleWithin is schedule with the next look at whether the peers answer after limit.
func (p *loopPair) scheduleWithin(limit time.Duration) {
	t := p.timing()
	at := p.loop.now + limit
	if look, ok := t.nextLook(); ok {
		at = min(at, look)
	}
	if !p.kept {
		at = min(at, p.began+keepAliveAfter)
	}
	p.loop.wheel.Set(&p.timer, at)
}

// unanswered returns for how long a peer has answered nothing that was sent to it, and which one. Zero: both answer.
func (p *loopPair) unanswered() (waited time.Duration, side int) {
	client, server := sys.Unanswered(int(p.fd[clientSide])), sys.Unanswered(int(p.fd[serverSide]))
	if client > server {
		return client, clientSide
	}
	return server, serverSide
}

// Timeout implements wheel.Owner. The timer is not moved with each byte: when it fires, the pair looks whether
// something moved since.
func (p *loopPair) Timeout() {
	switch p.state {
	case connecting:
		p.connectFailed(unix.ETIMEDOUT)
	case relaying:
		p.expire()
	case lingering:
		p.linger()
	}
}

// expire ends a pair that is relayed if it is time to, or sets its timer anew.
func (p *loopPair) expire() {
	if !p.kept && p.loop.now >= p.began+keepAliveAfter {
		p.kept = true
		sys.SetKeepAlive(p.fd[serverSide], keepAlive)
	}
	waited, silent := p.unanswered()
	if waited >= peerGoneAfter {
		p.sourceFailed(silent, unix.ETIMEDOUT)
		return
	}
	t := p.timing()
	switch due := t.due(p.isSettled, p.isTaken); due {
	case oldAndQuiet, tooOld:
		p.because(endAged, 0)
		p.s.at(p.loop.id).endedAged.Add(1)
		p.reset = p.reset || due == tooOld
		p.finish()
	case tooSilent:
		p.because(endIdle, 0)
		// Else the end would look like a proper one, though one direction is cut short.
		p.reset = p.reset || p.ends > 0 || p.stuck(clientSide) || p.stuck(serverSide)
		p.finish()
	case stillTaken:
		p.last = p.loop.now
		p.scheduleWithin(nextPeerLook(waited))
	case nothingDue:
		p.scheduleWithin(nextPeerLook(waited))
	}
}

// unsentBytes is how many bytes are on their way to both peers.
func (p *loopPair) unsentBytes() int {
	return sys.Unsent(int(p.fd[clientSide])) + sys.Unsent(int(p.fd[serverSide]))
}

// isTaken reports whether a peer has taken something since the last call.
func (p *loopPair) isTaken() bool { return p.unsent.moves(p.unsentBytes()) }

// stuck reports whether a direction has bytes that its destination does not take, in memory or in the socket of its
// source.
func (p *loopPair) stuck(from int) bool {
	f := &p.flows[from]
	return f.backlog != nil || p.readable[from] && !f.finished && sys.HasBytes(int(p.fd[from]))
}

// isSettled reports whether all that the peers have sent has arrived.
func (p *loopPair) isSettled() bool {
	return !p.stuck(clientSide) && !p.stuck(serverSide) && p.unsentBytes() == 0
}
