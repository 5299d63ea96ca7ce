package proxy

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"golang.org/x/sys/unix"
)

// Steps may be woken before they begin, while they run and while they pause, and no wake is lost. The threads end.
func TestShakersLoseNoWake(t *testing.T) {
	const handshakes, pauses = 100, 20
	done := make(chan struct{})
	var running, over, wakers sync.WaitGroup
	p := &shakers{most: 3, running: &running, done: done}
	type question struct {
		from     *steps
		answered *atomic.Bool
	}
	questions := make(chan question, handshakes)
	for range 3 {
		wakers.Go(func() {
			for q := range questions {
				q.answered.Store(true)
				q.from.wake()
				q.from.wake() // without a reason, perhaps after all is over
			}
		})
	}
	for range handshakes {
		w := &steps{}
		over.Add(1)
		w.do = func() {
			defer over.Done()
			for range pauses {
				var answered atomic.Bool
				for questions <- (question{w, &answered}); !answered.Load(); {
					w.pause()
				}
			}
		}
		p.start(w)
		w.wake()
	}
	over.Wait()
	close(questions)
	wakers.Wait()
	close(done)
	running.Wait()
	if len(p.all) != 0 || len(p.jobs) != 0 {
		t.Errorf("%d threads and %d handshakes are left", len(p.all), len(p.jobs))
	}
}

// A handshake that is over can be freed, although its thread goes on.
func TestShakersForgetWhatIsOver(t *testing.T) {
	done := make(chan struct{})
	var running, over sync.WaitGroup
	p := &shakers{most: 1, running: &running, done: done}
	var all []weak.Pointer[steps]
	for range 10 {
		w := &steps{}
		over.Add(1)
		w.do = func() {
			defer over.Done()
			w.pause()
		}
		p.start(w)
		w.wake()
		all = append(all, weak.Make(w))
	}
	over.Wait()
	eventually(t, func() error {
		runtime.GC()
		for i, w := range all[:len(all)-1] { // the thread may still see the last one
			if w.Value() != nil {
				return fmt.Errorf("handshake %d is kept", i)
			}
		}
		return nil
	})
	close(done)
	running.Wait()
	runtime.KeepAlive(p)
}

// In a flood, handshakes leave the processors to all other work. After it they have their usual priority again,
// although one of the flood has not ended.
func TestHandshakesOfAFloodHaveLowPriority(t *testing.T) {
	done := make(chan struct{})
	var running, over sync.WaitGroup
	p := &shakers{most: 1, yields: true, running: &running, done: done}
	usual := niceOf(t)
	first, blocked, release := make(chan int, 1), make(chan int, 1), make(chan struct{})
	all := make([]int, shakerFlood+2)
	over.Add(len(all) + 1)
	p.start(&steps{do: func() {
		first <- niceOf(t)
		<-release
		over.Done()
	}})
	if got := <-first; got != usual {
		t.Errorf("the nice value is %d without a flood, want %d", got, usual)
	}
	var last *steps
	for i := range all {
		w := &steps{}
		w.do = func() {
			all[i] = niceOf(t)
			if w == last {
				blocked <- 0
				w.pause()
			}
			over.Done()
		}
		last = w
		p.start(w)
	}
	close(release)
	<-blocked
	if want := min(usual+shakerNice, 19); all[0] != want || all[len(all)-1] != want {
		t.Errorf("the nice values are %d in a flood, want %d", all, want)
	}
	eventually(t, func() error {
		p.start(&steps{do: func() { first <- niceOf(t) }})
		if got := <-first; got != usual {
			return fmt.Errorf("the nice value is %d after the flood, want %d", got, usual)
		}
		return nil
	})
	last.wake()
	over.Wait()
	close(done)
	running.Wait()
}

// A thread keeps its priority if the handshakes of a flood have waited so long that the host must be busy. If they are
// late on a thread of a low priority, another thread begins the next ones.
func TestHandshakesOnABusyHost(t *testing.T) {
	done := make(chan struct{})
	var running, over sync.WaitGroup
	p := &shakers{most: 1, yields: true, running: &running, done: done}
	usual := niceOf(t)
	flood := func(waited time.Duration) (nice []int) { // of handshakes that the same thread finds waiting
		begun, release := make(chan struct{}), make(chan struct{})
		p.start(&steps{do: func() {
			close(begun)
			<-release
		}})
		<-begun
		nice = make([]int, shakerFlood+2)
		for i := range nice {
			over.Add(1)
			p.start(&steps{do: func() {
				nice[i] = niceOf(t)
				over.Done()
			}})
		}
		p.mu.Lock()
		for _, w := range p.jobs {
			w.since = w.since.Add(-waited)
		}
		p.mu.Unlock()
		close(release)
		over.Wait()
		return nice
	}
	if all := flood(2 * shakerSoon); all[0] != usual {
		t.Errorf("the nice values are %d on a busy host, want %d", all, usual)
	}
	held, release := make(chan struct{}), make(chan struct{})
	over.Add(1)
	p.start(&steps{do: func() { // stands for steps that get too little of the processors
		defer over.Done()
		p.lower()
		close(held)
		<-release
	}})
	<-held
	other := make(chan int, 2)
	p.start(&steps{do: func() { other <- niceOf(t) }})
	select {
	case <-other:
		t.Error("a thread began two handshakes at once")
	default:
	}
	p.mu.Lock()
	p.jobs[0].since = p.jobs[0].since.Add(-shakerLate)
	p.mu.Unlock()
	p.start(&steps{do: func() { other <- niceOf(t) }})
	for range 2 {
		if got := <-other; got != usual {
			t.Errorf("the nice value is %d when handshakes are late, want %d", got, usual)
		}
	}
	close(release)
	over.Wait()
	close(done)
	running.Wait()
}

// lower lets the only thread of the pool, which calls it, have a low priority.
func (p *shakers) lower() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[0].low = true
}

// niceOf returns the nice value of the calling thread.
func niceOf(t *testing.T) int {
	t.Helper()
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Error(err)
	}
	return 20 - raw
}
