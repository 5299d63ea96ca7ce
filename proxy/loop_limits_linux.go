package proxy

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// limit is how long nothing may move now; zero for no limit.
func (p *loopPair) limit() time.Duration {
	if p.ends > 0 {
		return p.half
	}
	return p.idle
}

// schedule sets the timer for what limits the pair now.
func (p *loopPair) schedule() {
	at := time.Duration(math.MaxInt64)
	if limit := p.limit(); limit > 0 {
		at = p.last + limit
	}
	if !p.kept {
		at = min(at, p.began+keepAliveAfter)
	}
	if old, grace := p.old(); old > 0 {
		if p.loop.now >= old { // a moment of quiet is looked for
			old = min(p.loop.now+quietFor, old+grace)
		}
		at = min(at, old)
	}
	if at == math.MaxInt64 {
		p.loop.wheel.Clear(&p.timer)
		return
	}
	p.loop.wheel.Set(&p.timer, at)
}

// Timeout implements wheel.Owner. The timer is not moved with each byte: when it fires, the pair looks whether
// something moved since.
func (p *loopPair) Timeout() {
	switch p.state {
	case connecting:
		p.connectFailed(unix.ETIMEDOUT)
	case relaying:
		if !p.kept && p.loop.now >= p.began+keepAliveAfter {
			p.kept = true
			sys.SetKeepAlive(p.fd[serverSide], keepAlive)
		}
		if old, grace := p.old(); old > 0 && p.loop.now >= old && p.aged(old+grace) {
			return
		}
		if limit := p.limit(); limit > 0 && p.loop.now-p.last >= limit {
			if p.isDraining() {
				p.last = p.loop.now
				p.schedule()
				return
			}
			p.because(endIdle, 0)
			// Else the end would look like a proper one, though one direction is cut short.
			p.reset = p.reset || p.ends > 0 || p.stuck(clientSide) || p.stuck(serverSide)
			p.finish()
			return
		}
		p.schedule()
	case lingering:
		p.linger()
	}
}

// isDraining tells whether a peer has taken something since this was asked last: nobody tells when the kernel's
// buffers empty, and to one who reads slowly that may take longer than the limit. The first time, it is given the
// benefit of the doubt.
func (p *loopPair) isDraining() bool {
	before := p.unsent
	p.unsent = int32(sys.Unsent(int(p.fd[clientSide])) + sys.Unsent(int(p.fd[serverSide])))
	return p.unsent > 0 && p.unsent != before
}

// stuck reports whether a direction has bytes that its destination does not take, in memory or in the socket of its
// source.
func (p *loopPair) stuck(from int) bool {
	f := &p.flows[from]
	return f.backlog != nil || p.readable[from] && !f.finished && sys.HasBytes(int(p.fd[from]))
}

// old is when the pair is so old that it should end, on the loop's clock, and how long it may look for a moment of
// quiet then; zero: never.
func (p *loopPair) old() (at, grace time.Duration) {
	a := p.s.aging.Load()
	if a.age == 0 {
		return 0, 0
	}
	from := max(p.began, a.since.Sub(p.loop.began))
	return from + a.of(uint64(p.began)+uint64(p.src.Port())<<40), a.grace
}

// aged ends a pair that is too old, if this is a moment of quiet or too late to wait for one, and tells whether it did.
func (p *loopPair) aged(latest time.Duration) bool {
	quiet := p.quiet()
	if !quiet && p.loop.now < latest {
		return false
	}
	p.because(endAged, 0)
	p.s.at(p.loop.id).endedAged.Add(1)
	p.reset = p.reset || !quiet
	p.finish()
	return true
}

// quiet tells whether the pair could end without anybody missing something; see quietFor.
func (p *loopPair) quiet() bool {
	return !p.asked && p.ends == 0 && p.loop.now-p.last >= quietFor && !p.stuck(clientSide) &&
		!p.stuck(serverSide) &&
		sys.Unsent(int(p.fd[clientSide])) == 0 && sys.Unsent(int(p.fd[serverSide])) == 0
}
