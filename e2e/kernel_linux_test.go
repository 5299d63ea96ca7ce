package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcgroup"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// Tests of the kernel path run as root, each in a network namespace and a control group of its own, so they affect no
// other process of the host. A test starts Lictor outside of the group, and then enters the group to become a client.
// To be sure that clients are on the path, a test freezes Lictor: the kernel alone serves them then.

// kernelPath makes the namespace and the group. It returns false in the process outside of the namespace, which has
// nothing to do.
func kernelPath(t *testing.T) (*testcgroup.Group, bool) {
	t.Helper()
	anyEngine(t)
	if os.Getuid() != 0 {
		testproc.Cannot(t, "the kernel path cannot be used", errors.New("this is not root"))
	}
	if !testnet.Inside(t, lictorVar+"="+lictorPath(t)) {
		return nil, false
	}
	return testcgroup.Make(t), true
}

// onPath returns the configuration of a Lictor whose services must be on the kernel path, for clients in the group.
func onPath(g *testcgroup.Group, services ...string) string {
	return fmt.Sprintf("kernel_path = \"on\"\nkernel_path_cgroup = %q\n", g.Name) + strings.Join(services, "")
}

// frozen stops a Lictor while f runs. Its listeners stay, so its clients wait.
func frozen(t testing.TB, l *testproc.Process, f func()) {
	t.Helper()
	must(t, testproc.Freeze(l.Pid()))
	defer func() { must(t, l.Signal(syscall.SIGCONT)) }()
	f()
}

// wantCountsAtOnce is wantCounts with several clients at once.
func wantCountsAtOnce(t testing.TB, clients int, addr netip.AddrPort, want map[string]int) {
	t.Helper()
	n := 0
	for _, c := range want {
		n += c
	}
	got := map[string]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range n / clients {
				name, err := ask(t.Context(), addr)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				got[name]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if !maps.Equal(got, want) {
		t.Errorf("%d clients, %d connections: got %v, want %v", clients, n, got, want)
	}
}

// The kernel keeps the promises of round_robin exactly, also for clients that connect at the same time.
func TestKernelPathRotates(t *testing.T) {
	t.Parallel()
	findConsul(t) // before the namespace, where nothing can be downloaded
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	c := startConsul(t, testconsul.Options{})
	for name, w := range map[string]int{"a": 3, "b": 1, "c": 1} {
		c.register(t, "equal", name, startGreeter(t, name).addr)
		c.register(t, "weighted", "w"+name, startGreeter(t, name).addr, weight(w))
	}
	l := runLictor(t, onPath(group, consulBlock(c), service("equal"), service("weighted")))
	must(t, group.Enter())
	frozen(t, l.Process, func() {
		wantCountsAtOnce(t, 8, l.addr(t, "equal"), map[string]int{"a": 400, "b": 400, "c": 400})
		wantCountsAtOnce(t, 8, l.addr(t, "weighted"), map[string]int{"a": 480, "b": 160, "c": 160})
	})
	must(t, group.Leave()) // clients outside of the group use the listener
	wantCounts(t, l.addr(t, "equal"), map[string]int{"a": 10, "b": 10, "c": 10})
}

// A dead instance refuses clients, because nothing can try another one for them. It is ejected as if the proxy had
// dialled it: clients on either path go to the next one.
func TestKernelPathEjects(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	dead, alive := startGreeter(t, "dead"), startGreeter(t, "alive")
	dead.kill()
	l := runLictor(t, onPath(group, service("web", static(dead.addr, alive.addr))))
	web := l.addr(t, "web")
	must(t, group.Enter())
	refused := 0
	eventually(t, "20 clients in a row are served", func() error {
		for i := range 20 {
			name, err := ask(t.Context(), web)
			switch {
			case errors.Is(err, syscall.ECONNREFUSED):
				refused++
				return fmt.Errorf("client %d was refused", i)
			case err != nil:
				t.Fatal(err)
			case name != "alive":
				t.Fatalf("got %q", name)
			}
		}
		return nil
	})
	if refused == 0 {
		t.Error("no client was refused, so they were not on the path")
	}
	must(t, group.Leave())
	wantCounts(t, web, map[string]int{"alive": 20})
	dead.start(t)
	must(t, group.Enter())
	awaitRotation(t, web, "dead", "alive")
}

// What the proxy learns about an instance holds on the kernel path, too.
func TestKernelPathFollowsEjectionsOfTheProxy(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	dead, alive := startGreeter(t, "dead"), startGreeter(t, "alive")
	l := runLictor(t, onPath(group, service("web", static(dead.addr, alive.addr))))
	web := l.addr(t, "web")
	dead.kill()
	wantCounts(t, web, map[string]int{"alive": 50}) // the proxy tries the other one
	must(t, group.Enter())
	frozen(t, l.Process, func() { wantCounts(t, web, map[string]int{"alive": 20}) })
}

// Without any instance, clients on the path get what clients of the proxy get: the listener's answer.
func TestKernelPathLeavesEmptyServicesToTheProxy(t *testing.T) {
	t.Parallel()
	findConsul(t)
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	c := startConsul(t, testconsul.Options{})
	a := startGreeter(t, "a")
	c.register(t, "web", "a", a.addr)
	l := runLictor(t, onPath(group, consulBlock(c), emptyService()))
	web := l.addr(t, "web")
	must(t, group.Enter())
	awaitRotation(t, web, "a")
	c.deregister(t, "a")
	l.awaitLog(t, 0, func(e entry) bool { return strings.Contains(e.field("@message"), "left") })
	errs := askers(t, web, 3)
	l.awaitAnswer(t, "status", 0, "3 clients waiting for an endpoint until ")
	c.register(t, "web", "a", a.addr)
	if all := errs(); len(all) > 0 {
		t.Fatal(errors.Join(all...))
	}
	eventually(t, "clients are on the path", func() (err error) {
		frozen(t, l.Process, func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var c *client
			if c, err = connect(ctx, web); err == nil {
				err = c.Close()
			}
		})
		return err
	})
}
