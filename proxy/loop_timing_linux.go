package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// timing returns the pair's time limits as of now.
func (p *loopPair) timing() timing {
	a := p.s.aging.Load()
	return timing{
		instant: p.loop.now, last: p.last, silence: p.limits.silence(int(p.ends)),
		old:    a.oldAt(p.began, p.loop.began, uint64(p.began)+uint64(p.src.Port())<<40),
		leeway: a.grace, asked: p.asked, ended: int(p.ends),
	}
}

// schedule sets the timer for the pair's next time limit.
func (p *loopPair) schedule() { p.scheduleWithin(peerLookEvery) }

// scheduleWithin does the same as schedule, but the next check of whether the peers answer comes after limit.
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

// unanswered returns how long a peer has acknowledged nothing, and which peer. Zero means that both peers answer.
func (p *loopPair) unanswered() (waited time.Duration, side int) {
	client, server := sys.Unanswered(int(p.fd[clientSide])), sys.Unanswered(int(p.fd[serverSide]))
	if client > server {
		return client, clientSide
	}
	return server, serverSide
}

// Timeout implements wheel.Owner. Bytes do not move the timer: when it fires, the pair checks whether bytes moved
// meanwhile.
func (p *loopPair) Timeout() {
	switch p.state {
	case connecting, asking:
		if p.isShaking(serverSide) {
			p.tooSlow()
			return
		}
		p.connectFailed(unix.ETIMEDOUT)
	case guessing:
		p.silent()
	case securing:
		p.insecure()
	case greeting:
		p.unheard()
	case relaying:
		p.expire()
	case lingering:
		p.linger()
	}
}

// expire ends a relaying pair whose time is over, or sets its timer again.
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
		// A plain close would look like a proper end, although one direction is cut short.
		p.reset = p.reset || p.ends > 0 || p.stuck(clientSide) || p.stuck(serverSide)
		p.finish()
	case stillTaken:
		p.last = p.loop.now
		p.scheduleWithin(nextPeerLook(waited))
	case nothingDue:
		p.scheduleWithin(nextPeerLook(waited))
	}
}

// unsentBytes returns how many bytes are on their way to both peers.
func (p *loopPair) unsentBytes() int {
	return sys.Unsent(int(p.fd[clientSide])) + sys.Unsent(int(p.fd[serverSide]))
}

// isTaken reports whether a peer has accepted bytes since the last call.
func (p *loopPair) isTaken() bool { return p.unsent.moves(p.unsentBytes()) }

// stuck reports whether a direction has bytes, in memory or in the source's socket, that its destination does not
// accept.
func (p *loopPair) stuck(from int) bool {
	f := &p.flows[from]
	if p.tls != nil && p.isStuckTLS(from) {
		return true
	}
	return f.backlog != nil || p.readable[from] && !f.finished && sys.HasBytes(int(p.fd[from]))
}

// isSettled reports whether everything that the peers have sent has been delivered.
func (p *loopPair) isSettled() bool {
	return !p.stuck(clientSide) && !p.stuck(serverSide) && p.unsentBytes() == 0
}
