package proxy

import "time"

// oldLocked is when the pair is so old that it should end, and how long it may look for a moment of quiet then;
// zero: never.
func (p *portablePair) oldLocked() (at time.Time, grace time.Duration) {
	a := p.service.aging.Load()
	if a.age == 0 {
		return at, 0
	}
	from := p.began
	if a.since.After(from) {
		from = a.since
	}
	return from.Add(a.of(p.seed)), a.grace
}

// lookLocked is when age is to be looked at; zero: never.
func (p *portablePair) lookLocked() time.Time {
	old, grace := p.oldLocked()
	now := time.Now()
	if old.IsZero() || now.Before(old) {
		return old
	}
	next, latest := now.Add(quietFor), old.Add(grace)
	if next.After(latest) {
		return latest
	}
	return next
}

// agedLocked ends a pair that is too old, if this is a moment of quiet or too late to wait for one, and tells
// whether it did.
func (p *portablePair) agedLocked() bool {
	old, grace := p.oldLocked()
	now := time.Now()
	if old.IsZero() || now.Before(old) {
		return false
	}
	quiet := p.quietLocked(now)
	if !quiet && now.Before(old.Add(grace)) {
		return false
	}
	p.because(endAged, nil)
	p.service.at(0).endedAged.Add(1)
	p.reset = p.reset || !quiet
	p.interruptLocked()
	return true
}

// quietLocked tells whether the pair could end without anybody missing something; see quietFor.
func (p *portablePair) quietLocked(now time.Time) bool {
	return !p.asked.Load() && p.ends == 0 && now.Sub(p.began)-time.Duration(p.last.Load()) >= quietFor &&
		connUnsent(p.client) == 0 && connUnsent(p.server) == 0
}

// reschedule has the pair look at what limits it anew.
func (p *portablePair) reschedule() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closing {
		p.deadlinesLocked()
	}
}
