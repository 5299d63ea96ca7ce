package proxy

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A stuckBalancer keeps whoever asks for an endpoint while it is shut, and tells of the first who does.
type stuckBalancer struct {
	*lb.RoundRobin
	gate    sync.RWMutex // write-locked while it is shut
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

// soon is longer than anything that moves takes to answer, if the test asks again and again until that is so.
const soon = 50 * time.Millisecond

// wantStuck waits until Alive says what, and then wants that asking costs nothing: each call would leave a goroutine
// behind, or one more question for whoever is stuck.
func wantStuck(t *testing.T, h *house, what string) {
	t.Helper()
	eventually(t, func() error {
		if err := h.Alive(time.Millisecond); err == nil || !strings.Contains(err.Error(), what) {
			return fmt.Errorf("not stuck as it should be: %v", err)
		}
		return nil
	})
	before := runtime.NumGoroutine()
	for range 100 {
		if h.Alive(time.Millisecond) == nil {
			t.Error("it is not stuck any more")
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

// Whoever keeps a loop, or the goroutine that reads a listener, shows, and so does that it is over.
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
		select {
		case <-b.entered:
		case <-time.After(time.Minute):
			t.Fatal("nobody asked for an endpoint")
		}
		what := "event loop "
		if _, portable := h.engine.(*portable); portable {
			what = `listener udp 127.0.0.1:`
		}
		wantStuck(t, h, what)
		b.gate.Unlock()
		wantAlive(t, h)
	})
}

// Locks that everybody needs show too.
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

// A goroutine that waits for a client, or is busy with one after the other, is not stuck.
func TestTurnsThatGoOn(t *testing.T) {
	var ts turns
	one := ts.add(func() string { return "one" })
	for range 10 {
		if errs := ts.stuck(0); errs != nil {
			t.Fatalf("it waits: got %v", errs)
		}
	}
	for range 10 {
		one.begin()
		if errs := ts.stuck(0); errs != nil {
			t.Fatalf("it is busy with another client: got %v", errs)
		}
		one.end()
	}
	one.begin()
	_ = ts.stuck(0)
	if errs := ts.stuck(0); len(errs) != 1 || !strings.Contains(errs[0].Error(), "one: busy with one client") {
		t.Errorf("it is busy with the same client: got %v", errs)
	}
	if errs := ts.stuck(time.Hour); errs != nil {
		t.Errorf("it is not for long: got %v", errs)
	}
	ts.remove(one)
	if errs := ts.stuck(0); errs != nil {
		t.Errorf("it has ended: got %v", errs)
	}
}

// A Proxier that has ended is not stuck.
func TestAliveAfterClose(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.start()
		h.Close()
		wantAlive(t, h)
	})
}
