package proxy

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// A stuckBalancer blocks calls of NextEndpoint while its gate is shut. The first call is reported to entered.
type stuckBalancer struct {
	*lb.RoundRobin
	gate    sync.RWMutex // write-locked while the gate is shut
	entered chan struct{}
}

func (b *stuckBalancer) NextEndpoint(service string, src netip.AddrPort, tried lb.Tried) (*lb.Member, error) {
	select {
	case b.entered <- struct{}{}:
	default:
	}
	b.gate.RLock()
	defer b.gate.RUnlock()
	return b.RoundRobin.NextEndpoint(service, src, tried)
}

// soon is longer than a part that makes progress takes to answer, if the test asks repeatedly.
const soon = 50 * time.Millisecond

// wantStuck waits until Alive reports what. wantStuck then checks that further calls of Alive leave no goroutine or
// question behind.
func wantStuck(t *testing.T, h *house, what string) {
	t.Helper()
	eventually(t, func() error {
		if err := h.Alive(time.Millisecond); err == nil || !strings.Contains(err.Error(), what) {
			return fmt.Errorf("not reported as stuck yet: %v", err)
		}
		return nil
	})
	before := runtime.NumGoroutine()
	for range 100 {
		if h.Alive(time.Millisecond) == nil {
			t.Error("Alive reports no stuck part any more")
		}
	}
	if n := runtime.NumGoroutine(); n > before+10 {
		t.Errorf("%d goroutines became %d", before, n)
	}
}

func wantAlive(t *testing.T, h *house) {
	t.Helper()
	eventually(t, func() error { return h.Alive(soon) })
}

// Alive reports a stuck event loop, or a stuck goroutine that reads a listener. Alive reports nothing once the stuck
// part makes progress again.
func TestAliveSaysWhatIsStuck(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		b := &stuckBalancer{RoundRobin: h.balancer, entered: make(chan struct{}, 1)}
		h.options.LoadBalancer = b
		echo := udpServer(t, echoUDP)
		addr := h.serve(Service{Protocol: UDP}, echo)
		wantAlive(t, h)

		b.gate.Lock()
		c := dialUDP(t, addr)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		testproc.Receive(t, "a call of NextEndpoint", b.entered)
		what := "event loop "
		if _, portable := h.engine.(*portable); portable {
			what = `listener udp 127.0.0.1:`
		}
		wantStuck(t, h, what)
		b.gate.Unlock()
		wantAlive(t, h)
	})
}

// Alive reports shared locks that are held.
func TestAliveSaysWhichLockIsHeld(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.start()
		wantAlive(t, h)
		h.mu.Lock()
		wantStuck(t, h, "the lock of all listeners")
		h.mu.Unlock()
		wantAlive(t, h)
		if e, ok := h.engine.(*portable); ok {
			for what, lock := range map[string]*sync.Mutex{
				"the lock of connections by endpoint":          &e.byEndpoint.mu,
				"the lock of the descriptors":                  &h.budget.mu,
				"the lock of the search for idle UDP sessions": &e.searching,
			} {
				lock.Lock()
				wantStuck(t, h, what)
				lock.Unlock()
				wantAlive(t, h)
			}
		}
	})
}

// A goroutine that waits for a client, or serves one client after the other, is not stuck.
func TestTurnsThatGoOn(t *testing.T) {
	var ts turns
	one := ts.add(func() string { return "one" })
	for range 10 {
		if errs := ts.stuck(0); errs != nil {
			t.Fatalf("while it waits for a client: got %v", errs)
		}
	}
	for range 10 {
		one.begin()
		if errs := ts.stuck(0); errs != nil {
			t.Fatalf("while it serves another client: got %v", errs)
		}
		one.end()
	}
	one.begin()
	_ = ts.stuck(0)
	if errs := ts.stuck(0); len(errs) != 1 || !strings.Contains(errs[0].Error(), "one: busy with one client") {
		t.Errorf("while it serves the same client: got %v", errs)
	}
	if errs := ts.stuck(time.Hour); errs != nil {
		t.Errorf("before patience has passed: got %v", errs)
	}
	ts.remove(one)
	if errs := ts.stuck(0); errs != nil {
		t.Errorf("after it has ended: got %v", errs)
	}
}

// A closed Proxier is not stuck.
func TestAliveAfterClose(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.start()
		h.Close()
		wantAlive(t, h)
	})
}
