package proxy

import (
	"crypto/tls"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"weak"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
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

// A handshake leaves the processors to all other work.
func TestHandshakesHaveLowPriority(t *testing.T) {
	h := &house{T: t, balancer: lb.NewRoundRobin()}
	h.options = Options{LoadBalancer: h.balancer}
	seen := make(chan int, 1)
	at := h.serve(Service{AcceptTLS: &AcceptTLS{Config: func() *tls.Config {
		seen <- niceOf(t)
		return serverConfig(0)
	}}}, tcpServer(t, echo))
	defer h.Close()
	dialTLS(t, at, clientConfig(0))
	if got, want := <-seen, min(niceOf(t)+shakerNice, 19); got != want {
		t.Errorf("the nice value is %d, want %d", got, want)
	}
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
