package proxy

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"
)

// Steps may be woken before they begin, while they run and while they pause, and no wake is lost. The goroutines end.
func TestShakersLoseNoWake(t *testing.T) {
	const handshakes, pauses = 100, 20
	var running, over, wakers sync.WaitGroup
	p := &shakers{most: 3, running: &running}
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
	running.Wait()
	p.close()
	eventually(t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := len(p.jobs) + len(p.ready) + len(p.free); p.workers != 0 || n != 0 {
			return fmt.Errorf("%d goroutines and %d handshakes are left", p.workers, n)
		}
		return nil
	})
}

// A handshake that is over can be freed, although its coroutine is kept.
func TestShakersForgetWhatIsOver(t *testing.T) {
	var running, over sync.WaitGroup
	p := &shakers{most: 1, running: &running}
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
		for i, w := range all[:len(all)-1] { // the goroutine may still see the last one
			if w.Value() != nil {
				return fmt.Errorf("handshake %d is kept", i)
			}
		}
		return nil
	})
	running.Wait()
	p.close()
}

// A pool keeps few coroutines after a flood, and none after a pause.
func TestShakersKeepFewCoroutines(t *testing.T) {
	var running sync.WaitGroup
	p := &shakers{most: 1, running: &running}
	all := make([]*steps, 2*maxFree)
	for i := range all {
		w := &steps{}
		w.do = w.pause
		all[i] = w
		p.start(w)
	}
	for _, w := range all {
		w.wake()
	}
	running.Wait()
	kept := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.free)
	}
	if n := kept(); n > maxFree { // a slow machine may be past the pause already
		t.Errorf("%d coroutines are kept, want %d at most", n, maxFree)
	}
	eventually(t, equals("coroutines", kept, 0))
}

// Many handshakes that wait are a flood, unless the host is so busy that they are late.
func TestFloodOfHandshakes(t *testing.T) {
	for _, test := range []struct {
		name   string
		begun  int // handshakes that can go on
		jobs   int // handshakes that have not begun
		waited time.Duration
		flood  bool
	}{
		{"flood of clients", 0, shakerFlood + 1, 0, true},
		{"flood of which some have begun", shakerFlood, 1, 0, true},
		{"few", 1, shakerFlood - 1, 0, false},
		{"busy host", 0, shakerFlood + 1, 2 * shakerSoon, false},
		{"busy host, those that have begun are late", shakerFlood, 1, 2 * shakerSoon, false},
		{"large flood", 0, 300, 300 * time.Millisecond, true},
		{"largest flood", 0, 1000, shakerLate, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &shakers{running: new(sync.WaitGroup)}
			for range test.begun {
				p.ready = append(p.ready, &steps{do: func() {}, since: time.Now().Add(-test.waited)})
			}
			for range test.jobs {
				p.start(&steps{do: func() {}})
			}
			for _, w := range p.jobs {
				w.since = w.since.Add(-test.waited)
			}
			w, flood := p.take()
			w.in.end()
			if flood != test.flood {
				t.Errorf("flood: %v, want %v", flood, test.flood)
			}
		})
	}
}

// Each step of a flood is followed by a rest, until few handshakes wait. Handshakes with endpoints do not rest.
func TestHandshakesGiveWay(t *testing.T) {
	const handshakes = 20
	for _, rests := range []bool{true, false} {
		times := 0
		p := &shakers{running: new(sync.WaitGroup)} // no goroutine but this one does steps
		if rests {
			p.giveWay = func() { times++ }
		}
		for range handshakes {
			p.start(&steps{do: func() {}})
		}
		for _, w := range p.jobs {
			w.since = w.since.Add(time.Hour) // never late
		}
		p.run()
		p.close()
		if want := handshakes - shakerFlood; rests && times != want {
			t.Errorf("%d handshakes give way %d times, want %d", handshakes, times, want)
		}
		if len(p.jobs) != 0 {
			t.Errorf("%d handshakes are left", len(p.jobs))
		}
	}
}

// A panic in a handshake says where it happened, although iter.Pull forgets the stack.
func TestPanicInAHandshakeHasItsStack(t *testing.T) {
	defer func() {
		if text := fmt.Sprint(recover()); !strings.Contains(text, "broken") ||
			!strings.Contains(text, "TestPanicInAHandshakeHasItsStack") {
			t.Errorf("got %s", text)
		}
	}()
	p := &shakers{running: new(sync.WaitGroup)}
	p.start(&steps{do: func() { panic("broken") }})
	w, _ := p.take()
	w.in.resume()
}

// What a flood of handshakes would delay are pairs without TLS, pairs that have had it for a while, and datagrams. What
// the clients of the flood send counts only later.
func TestRelaysThatAFloodDelays(t *testing.T) {
	tcp := func(t *testing.T, at netip.AddrPort) func() {
		c := dialTCP(t, at)
		return func() { exchange(t, c, "hello") }
	}
	for _, test := range []struct {
		name     string
		service  Service
		endpoint netip.AddrPort
		open     func(t *testing.T, at netip.AddrPort) (ask func())
		newcomer bool
	}{
		{"TCP", Service{}, tcpServer(t, echo), tcp, false},
		{"TLS", Service{AcceptTLS: acceptTLS(serverConfig(0))}, tcpServer(t, echo),
			func(t *testing.T, at netip.AddrPort) func() {
				c := dialTLS(t, at, clientConfig(0))
				return func() { exchange(t, c, "hello") }
			}, true},
		{"UDP", Service{Protocol: UDP}, udpServer(t, echoUDP), func(t *testing.T, at netip.AddrPort) func() {
			c := dialUDP(t, at)
			return func() { askOnce(t, c, "hello") }
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			onLoops(t, 1, func(t *testing.T, h *house) {
				at := h.serve(test.service, test.endpoint)
				e := h.engine.(*loopEngine)
				if e.relays() {
					t.Error("something is relayed before there is a client")
				}
				began := time.Now()
				ask := test.open(t, at)
				eventually(t, func() error {
					if ask(); !e.relays() {
						return errPending
					}
					return nil
				})
				if after := time.Since(began); test.newcomer && after < newcomer {
					t.Errorf("what a newcomer sends counts after %v already", after)
				}
				eventually(t, func() error {
					if e.relays() {
						return errPending
					}
					return nil
				})
			})
		})
	}
}
