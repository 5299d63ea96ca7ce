package proxy

import (
	"fmt"
	"iter"
	"runtime/debug"
	"sync"
	"time"
)

// This file has the goroutines that do the handshakes of TLS. A handshake takes hundreds of microseconds of a
// processor, so the loops do not do it. There are few such goroutines, so that a flood of handshakes leaves processors
// to the relays, and in a flood they give way to the other threads of the host. They do so only while something else is
// relayed: otherwise each handshake of the flood would cost a fifth more without any use.
//
// A handshake waits for its peer most of the time, and thousands may wait. So each is a coroutine, which goes on on
// whichever goroutine takes it next.

const (
	// shakerFlood is how many handshakes wait for a goroutine in a flood of handshakes.
	shakerFlood = 3

	// shakerSoon is how soon handshakes go on even if they give way: shakerSoon, and shakerEach for each handshake that
	// waits, but at most shakerLate. If one has waited for longer, the host is so busy with other work that handshakes
	// that give way to it would get almost nothing.
	shakerSoon = 50 * time.Millisecond
	shakerEach = 2 * time.Millisecond
	shakerLate = time.Second

	// shakerRest is how long a processor is left alone when a handshake gives way, at least: on Linux a sleep takes
	// about 50 us more. What a relay moves wakes its peer, and the answer of that wakes the relay. Without a rest, a
	// handshake takes each moment between these, and holds the processor for longer than the moment.
	shakerRest = 50 * time.Microsecond

	// shakerIdle is how long coroutines without work are kept, at least.
	shakerIdle = time.Second
)

// shakers do handshakes: with clients, or with endpoints.
type shakers struct {
	most    int             // handshakes that compute at once
	giveWay func()          // called after each step in a flood, without mu; nil: these never give way
	running *sync.WaitGroup // counts the handshakes that are not over

	mu      sync.Mutex // guards the following fields, and those of steps that say so
	jobs    []*steps   // not begun yet, in order
	ready   []*steps   // begun, and can go on
	workers int        // goroutines that do steps
	free    []*coroutine
	tidies  bool // tidy will be called
	used    bool // steps were done since the last call of tidy
}

// steps are a handshake in progress: do runs, with pauses in which the peer is awaited.
type steps struct {
	do   func()
	pool *shakers
	in   *coroutine // nil: not begun; guarded by pool.mu

	// Guarded by pool.mu.
	paused bool      // awaits wake
	woken  bool      // wake was called since the last pause
	since  time.Time // when it began to wait for a goroutine
}

// A coroutine runs steps, one after the other. Steps that run in a coroutine that was used before find a large stack:
// growing it costs a twentieth of a handshake.
type coroutine struct {
	work   *steps
	resume func() (struct{}, bool)
	yield  func(struct{}) bool
	end    func()
}

func newCoroutine() *coroutine {
	c := &coroutine{}
	c.resume, c.end = iter.Pull(func(yield func(struct{}) bool) {
		c.yield = yield
		defer withStack()
		for {
			c.work.do()
			if c.work = nil; !yield(struct{}{}) {
				return
			}
		}
	})
	return c
}

// withStack adds the stack to a panic. It is of a coroutine, and iter.Pull keeps only the value.
func withStack() {
	if v := recover(); v != nil {
		panic(fmt.Sprintf("%v\n\n%s", v, debug.Stack()))
	}
}

// start makes a goroutine run w.do. Until it is over, w.do may call w.pause.
func (p *shakers) start(w *steps) {
	p.running.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	w.pool, w.since = p, time.Now()
	p.jobs = append(p.jobs, w)
	p.growLocked()
}

// growLocked starts another goroutine, if there may be one.
func (p *shakers) growLocked() {
	if p.workers < p.most {
		p.workers++
		go p.run()
	}
}

// pause returns after wake was called. If wake was called since the last pause, pause returns soon.
func (w *steps) pause() { w.in.yield(struct{}{}) }

// wake ends the pause of w. Any goroutine may call wake, even before w has begun and after it is over.
func (w *steps) wake() {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.woken = true; w.paused {
		p.goOnLocked(w)
		p.growLocked()
	}
}

// goOnLocked ends the pause of w.
func (p *shakers) goOnLocked(w *steps) {
	w.paused, w.woken, w.since = false, false, time.Now()
	p.ready = append(p.ready, w)
}

// run does steps until none can go on or begin.
func (p *shakers) run() {
	for {
		w, flood := p.take()
		if w == nil {
			return
		}
		w.in.resume()
		p.pauseOrEnd(w)
		if flood && p.giveWay != nil {
			p.giveWay()
		}
	}
}

// take takes steps that can go on, or else some that have not begun, so that what has begun is over soon. It returns
// nil if there are none: then the goroutine must end. flood says that there are many, and that they are not late.
func (p *shakers) take() (w *steps, flood bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.ready) + len(p.jobs); n > shakerFlood {
		flood = max(waited(p.ready), waited(p.jobs)) < min(shakerSoon+time.Duration(n)*shakerEach, shakerLate)
	}
	from := &p.ready
	if len(*from) == 0 {
		from = &p.jobs
	}
	if len(*from) == 0 {
		p.workers--
		if p.used = true; !p.tidies {
			p.tidies = true
			time.AfterFunc(shakerIdle, p.tidy)
		}
		return nil, false
	}
	w = (*from)[0]
	(*from)[0] = nil // the array behind the slice would keep it
	*from = (*from)[1:]
	if w.in == nil {
		p.beginLocked(w)
	}
	return w, flood
}

// beginLocked gives w a coroutine.
func (p *shakers) beginLocked(w *steps) {
	if n := len(p.free); n > 0 {
		w.in, p.free = p.free[n-1], p.free[:n-1]
	} else {
		w.in = newCoroutine()
	}
	w.in.work = w
}

// waited returns how long the first of the queue has waited for a goroutine.
func waited(queue []*steps) time.Duration {
	if len(queue) == 0 {
		return 0
	}
	return time.Since(queue[0].since)
}

// pauseOrEnd is called when w has run.
func (p *shakers) pauseOrEnd(w *steps) {
	c := w.in
	if c.work != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if w.paused = true; w.woken {
			p.goOnLocked(w)
		}
		return
	}
	p.mu.Lock()
	keep := len(p.free) < maxFree
	if keep {
		p.free = append(p.free, c)
	}
	p.mu.Unlock()
	if !keep {
		c.end()
	}
	p.running.Done()
}

// tidy ends the coroutines without work, if no steps were done lately. Otherwise it looks again later.
func (p *shakers) tidy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used || p.workers > 0 {
		p.used = false
		time.AfterFunc(shakerIdle, p.tidy)
		return
	}
	p.tidies = false
	p.endFreeLocked()
}

func (p *shakers) endFreeLocked() {
	for _, c := range p.free {
		c.end()
	}
	p.free = nil
}

// close ends what is left after all handshakes are over.
func (p *shakers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endFreeLocked()
}
