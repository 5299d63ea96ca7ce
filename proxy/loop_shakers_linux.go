package proxy

import (
	"iter"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file has the threads that do the handshakes of TLS. A handshake takes hundreds of microseconds of a processor,
// so the loops do not do it. A flood of handshakes must not delay the relays either. So there are few such threads, and
// during a flood of clients the kernel prefers the other threads of the host to them. Handshakes with endpoints have
// threads of their own, which keep their priority: an endpoint that is late is ejected.
//
// A handshake waits for its peer most of the time. It is a coroutine, because thousands may wait on one thread. A
// coroutine stays on the thread that began it: Go allows nothing else for threads that goroutines have locked, and a
// thread cannot get its former priority back without a privilege.

const (
	// shakerFlood is how many handshakes wait for a thread in a flood of handshakes.
	shakerFlood = 3

	// shakerNice is added to the nice value of a thread that does the handshakes of a flood. Against another thread
	// that wants the same processor, it gets a twentieth of it. With 10, a flood still made the 99th percentile of the
	// latency of bare requests more than twice as long. Without a flood the priority is the usual one, because on a
	// host whose processors are all busy, handshakes of a low priority take longer than their peers wait.
	shakerNice = 14

	// shakerSoon is how soon handshakes get a thread on a host that has processors to spare. If they have waited for
	// longer, the host is busy with other work, and a thread of a low priority would get almost nothing of it.
	shakerSoon = 50 * time.Millisecond

	// shakerLate is how long a handshake waits for a thread of a low priority before other threads begin the next
	// handshakes. It is short beside the time that peers wait.
	shakerLate = time.Second

	// shakerIdle is how long such a thread waits for the next handshake before it ends.
	shakerIdle = time.Second
)

// shakers are the threads that do handshakes: with clients, or with endpoints.
type shakers struct {
	most    int  // threads
	yields  bool // in a flood, the threads have a low priority
	running *sync.WaitGroup
	done    <-chan struct{} // closed when threads without work must end

	mu      sync.Mutex // guards the following fields, and those of shaker and steps that say so
	jobs    []*steps   // not begun yet, in order
	all     []*shaker
	waiting []*shaker // those that wait for work
	retired int       // threads that are not in all any more, and not over
}

// A shaker is one of the threads.
type shaker struct {
	pool   *shakers
	called chan struct{} // receives an element when a thread that waits has work

	// Guarded by pool.mu.
	ready   []*steps // begun by this thread, and can go on
	retired bool     // only ends what it has begun
	low     bool     // the priority is low; only the thread itself sets it

	// Only the thread itself uses these.
	begun int          // handshakes that are not over
	free  []*coroutine // without work
}

// steps are a handshake in progress: do runs, with pauses in which the peer is awaited.
type steps struct {
	do   func()
	pool *shakers
	on   *shaker    // nil: not begun; guarded by pool.mu
	in   *coroutine // set by the thread that begins

	// Guarded by pool.mu.
	paused bool      // awaits wake
	woken  bool      // wake was called since the last pause
	since  time.Time // when it began to wait for a thread
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
		for {
			c.work.do()
			if c.work = nil; !yield(struct{}{}) {
				return
			}
		}
	})
	return c
}

// start makes a thread run w.do. Until it is over, w.do may call w.pause.
func (p *shakers) start(w *steps) {
	w.pool = p
	p.mu.Lock()
	defer p.mu.Unlock()
	w.since = time.Now()
	p.jobs = append(p.jobs, w)
	p.relieveLocked()
	p.growLocked()
}

// growLocked makes a thread that waits look for work, or else starts one if there may be another.
func (p *shakers) growLocked() {
	i := slices.IndexFunc(p.waiting, func(s *shaker) bool { return !s.retired })
	switch {
	case i >= 0:
		p.callLocked(p.waiting[i])
	case len(p.all) < p.most:
		s := &shaker{pool: p, called: make(chan struct{}, 1)}
		p.all = append(p.all, s)
		p.running.Go(s.run)
	}
}

// callLocked makes s look for work, if it waits.
func (p *shakers) callLocked(s *shaker) {
	if i := slices.Index(p.waiting, s); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		select {
		case s.called <- struct{}{}:
		default: // a former call was not received, because s found the work without it
		}
	}
}

// pause returns after wake was called. If wake was called since the last pause, pause returns soon.
func (w *steps) pause() { w.in.yield(struct{}{}) }

// wake ends the pause of w. Any goroutine may call wake, even before w has begun and after it is over.
func (w *steps) wake() {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if !w.paused {
		w.woken = true
		return
	}
	w.paused, w.since = false, time.Now()
	w.on.ready = append(w.on.ready, w)
	p.callLocked(w.on)
}

// run does handshakes until there have been none for shakerIdle.
func (s *shaker) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine, because its priority may be low
	for w := s.next(); w != nil; w = s.next() {
		if w.in == nil {
			s.begin(w)
		}
		c := w.in
		c.resume()
		if c.work == nil {
			s.begun--
			s.free = append(s.free, c)
			continue
		}
		p := s.pool
		p.mu.Lock()
		if w.paused = !w.woken; w.woken {
			w.woken, w.since = false, time.Now()
			s.ready = append(s.ready, w)
		}
		p.mu.Unlock()
	}
	for _, c := range s.free {
		c.end()
	}
}

func (s *shaker) begin(w *steps) {
	if n := len(s.free); n > 0 {
		w.in, s.free = s.free[n-1], s.free[:n-1]
	} else {
		w.in = newCoroutine()
	}
	w.in.work = w
	s.begun++
}

// next waits for steps that can go on or begin. It returns nil when the thread must end.
func (s *shaker) next() *steps {
	var idle *time.Timer
	for {
		if w := s.take(); w != nil {
			return w
		}
		if idle == nil {
			idle = time.NewTimer(shakerIdle)
			defer idle.Stop()
		}
		if s.low && s.begun == 0 && s.leave() {
			return nil
		}
		done := s.pool.done
		if s.begun > 0 {
			done = nil
		}
		select {
		case <-s.called:
			continue
		case <-idle.C:
			idle.Reset(shakerIdle)
		case <-done:
		}
		if s.leave() {
			return nil
		}
	}
}

// take takes steps that can go on, or else some that have not begun, so that what has begun is over soon. If there are
// none, s waits for a call from now on. If there are many, the priority of the thread falls. It cannot rise again, so
// after the flood another thread takes the place of s in the pool, and s ends when what it has begun is over. The same
// happens in the flood when s gets too little of the processors.
func (s *shaker) take() (w *steps) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.relieveLocked()
	if p.yields && !s.low && len(s.ready)+len(p.jobs) > shakerFlood &&
		max(waited(s.ready), waited(p.jobs)) < shakerSoon {
		s.low = true
		sys.LowerPriority(shakerNice)
	}
	from := &s.ready
	if len(*from) == 0 && !s.retired {
		from = &p.jobs
	}
	if len(*from) > 0 {
		w = (*from)[0]
		(*from)[0] = nil // the array behind the slice would keep it
		*from = (*from)[1:]
		w.on = s
		return w
	}
	if s.low {
		s.retireLocked()
	}
	if !slices.Contains(p.waiting, s) {
		p.waiting = append(p.waiting, s)
	}
	return nil
}

// waited returns how long the first of the queue has waited for a thread.
func waited(queue []*steps) time.Duration {
	if len(queue) == 0 {
		return 0
	}
	return time.Since(queue[0].since)
}

// relieveLocked gives the places of threads of a low priority to others, if handshakes that have not begun are late.
func (p *shakers) relieveLocked() {
	if waited(p.jobs) < shakerLate {
		return
	}
	for _, s := range slices.Clone(p.all) {
		if s.low && s.retireLocked() {
			p.growLocked()
		}
	}
}

// retireLocked gives the place of s in the pool to another thread, and reports whether it has. There may be as many
// retired threads as others.
func (s *shaker) retireLocked() bool {
	p := s.pool
	if s.retired || p.retired >= p.most {
		return false
	}
	s.retired = true
	p.retired++
	p.removeLocked(s)
	return true
}

// removeLocked takes the place of s from it.
func (p *shakers) removeLocked(s *shaker) {
	p.all = slices.DeleteFunc(p.all, func(other *shaker) bool { return other == s })
}

// leave removes s from the pool, and reports whether it has. A thread that has begun handshakes or was called stays.
func (s *shaker) leave() bool {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.waiting, s)
	if s.begun > 0 || i < 0 {
		return false
	}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	if s.retired {
		p.retired--
	}
	p.removeLocked(s)
	return true
}
