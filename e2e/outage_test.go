//go:build unix

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

func TestConsulKilledWhileClientsWorkAndBackWithOthers(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b", "c"} {
		c.register(t, "web", name, startEcho(t, name).addr)
	}
	l := runLictor(t, consulBlock(c)+service("web"))
	web := l.addr(t, "web")

	clients := startWorkers(t, web, 50)
	clients.awaitRounds(t, 20)
	c.Kill()
	clients.awaitRounds(t, 100)
	l.awaitLog(t, 0, complaint("consul"))
	clients.awaitRounds(t, 20)
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}

	must(t, c.Restart(t.Context()))
	c.register(t, "web", "c", startEcho(t, "new c").addr)
	c.register(t, "web", "d", startEcho(t, "d").addr)
	awaitRotation(t, web, "new c", "d")
}

// An outage of Consul is logged once, not each second.
func TestConsulKilledIsLoggedOnce(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, consulBlock(c)+service("web")+service("api"))
	c.Kill()
	l.awaitLog(t, 0, complaint("consul"))
	awaitRotation(t, l.addr(t, "web"), "a")
	// Lictor tries again meanwhile. The failures of these attempts must not be logged each.
	count(t, l.addr(t, "web"), 2000)
	complaints := 0
	for _, e := range l.log() {
		if complaint("consul")(e) {
			complaints++
		}
	}
	if complaints > 1 {
		t.Errorf("%d lines about one outage", complaints)
	}
}

func TestStoppedAgentIsNoticedAndRecovers(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	if testing.Short() {
		t.Skip("waits until the deadline of a blocking query is over")
	}
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b"} {
		c.register(t, "web", name, startEcho(t, name).addr)
	}
	l := runLictor(t, consulBlock(c)+service("web"))
	web := l.addr(t, "web")
	open := mustConnect(t, web)

	c.pause(t)
	l.awaitLog(t, 0, complaint("consul"))
	wantCounts(t, web, map[string]int{"a": 10, "b": 10})
	must(t, open.echo("still there?"))

	c.resume(t)
	c.register(t, "web", "c", startEcho(t, "c").addr)
	awaitRotation(t, web, "a", "b", "c")
}

// workers are clients. Each keeps one connection, uses it, and makes another one in each round, and then rests.
type workers struct {
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup
	rounds []atomic.Int64
	errors chan error
}

func startWorkers(t *testing.T, addr netip.AddrPort, n int) *workers {
	t.Helper()
	w := &workers{rounds: make([]atomic.Int64, n), errors: make(chan error, n)}
	w.ctx, w.cancel = context.WithCancel(t.Context())
	for i := range n {
		w.group.Go(func() { w.work(addr, i) })
	}
	t.Cleanup(w.stop)
	return w
}

func (w *workers) work(addr netip.AddrPort, i int) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	kept, err := connect(ctx, addr)
	if err != nil {
		w.errors <- err
		return
	}
	defer func() { _ = kept.Close() }()
	for w.ctx.Err() == nil {
		if err := w.round(addr, kept); err != nil {
			w.errors <- fmt.Errorf("client %d, round %d: %w", i, w.rounds[i].Load(), err)
			return
		}
		w.rounds[i].Add(1)
		select {
		case <-w.ctx.Done():
		case <-time.After(workersRest):
		}
	}
}

// workersRest is how long a worker rests between two rounds. Without a rest, ten workers would use all processors for
// as long as an outage lasts, to find the same.
const workersRest = 20 * time.Millisecond

func (w *workers) round(addr netip.AddrPort, kept *client) error {
	if err := kept.echo("on the kept connection"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := connect(ctx, addr)
	if err != nil {
		return err
	}
	if err := c.echo("on a new connection"); err != nil {
		return err
	}
	return c.Close()
}

// awaitRounds waits until each of the clients has worked n more rounds.
func (w *workers) awaitRounds(t *testing.T, n int64) {
	t.Helper()
	want := make([]int64, len(w.rounds))
	for i := range want {
		want[i] = w.rounds[i].Load() + n
	}
	eventually(t, "all clients work", func() error {
		if len(w.errors) > 0 {
			t.Fatal(<-w.errors)
		}
		for i := range want {
			if got := w.rounds[i].Load(); got < want[i] {
				return fmt.Errorf("client %d: %d rounds of %d", i, got, want[i])
			}
		}
		return nil
	})
}

func (w *workers) stop() {
	w.cancel()
	w.group.Wait()
}
