//go:build unix

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// freePort returns an address of 127.0.0.1 that is free now, and another one for each call. testproc.FreePort says
// which ports these are.
func freePort(t testing.TB) netip.AddrPort {
	t.Helper()
	host := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	port, err := testproc.FreePort(func(port int) bool {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(host, uint16(port))))
		return err == nil && l.Close() == nil
	})
	must(t, err)
	return netip.AddrPortFrom(host, uint16(port))
}

// serviceAt is service with a listener at addr.
func serviceAt(name string, addr netip.AddrPort, body ...string) string {
	return fmt.Sprintf("service %q {\n  listen = %q\n  %s\n}\n", name, addr, strings.Join(body, "\n  "))
}

// endpoints returns a static block of instances.
func endpoints(instances ...*instance) string {
	var addrs []string
	for _, i := range instances {
		addrs = append(addrs, fmt.Sprintf("%q", i.addr))
	}
	return "static { endpoints = [" + strings.Join(addrs, ", ") + "] }"
}

func TestReloadKeepsWhatIsTheSame(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b", "c"} {
		c.register(t, "web", name, startEcho(t, name).addr)
	}
	web, api, other := freePort(t), freePort(t), startEcho(t, "other")
	l := runLictor(t, consulBlock(c)+serviceAt("web", web))
	turns := count(t, web, 2) // two of three instances have had their turn
	conn := mustConnect(t, web)
	turns[conn.name]++

	l.mustReload(t, consulBlock(c)+serviceAt("web", web)+serviceAt("api", api, endpoints(other)))
	must(t, conn.echo("still there?"))
	awaitRotation(t, api, "other")
	if len(turns) != 3 {
		t.Errorf("before the reload: %v, want each once", turns)
	}
	wantCounts(t, web, map[string]int{"a": 3, "b": 3, "c": 3})

	l.mustReload(t, consulBlock(c)+serviceAt("web", web, `idle_timeout = "10m"`)+serviceAt("api",
		api, endpoints(other)))
	must(t, conn.echo("and now?"))

	l.mustReload(t, consulBlock(c)+serviceAt("api", api, endpoints(other)))
	awaitRefusal(t, web)
	must(t, conn.echo("although the service is gone?"))
}

func TestReloadFollowsAnotherQuery(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr, tags("v1"))
	c.register(t, "web", "b", startEcho(t, "b").addr, tags("v2"))
	web := freePort(t)
	l := runLictor(t, consulBlock(c)+serviceAt("web", web, `consul { tags = ["v1"] }`))
	awaitRotation(t, web, "a")
	l.mustReload(t, consulBlock(c)+serviceAt("web", web, `consul { tags = ["v2"] }`))
	awaitRotation(t, web, "b")
	c.deregister(t, "b")
	c.register(t, "web", "d", startEcho(t, "d").addr, tags("v2"))
	awaitRotation(t, web, "d")
	l.mustReload(t, serviceAt("web", web, endpoints(startEcho(t, "s"))))
	awaitRotation(t, web, "s")
	c.deregister(t, "d") // Lictor must not ask for it any more
	l.mustReload(t, consulBlock(c)+serviceAt("web", web, `consul { tags = ["v1"] }`))
	awaitRotation(t, web, "a")
}

func TestReloadWhileConsulIsAwayKeepsEndpoints(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	web, api := freePort(t), freePort(t)
	l := runLictor(t, consulBlock(c)+serviceAt("web", web))
	awaitRotation(t, web, "a")
	c.Kill()
	l.mustReload(t, fmt.Sprintf("consul { address = %q }\n", deadAddr(t))+serviceAt("web", web,
		`connect_timeout = "2s"`)+serviceAt("api", api))
	wantCounts(t, web, map[string]int{"a": 3})
}

func TestBadConfigurationChangesNothing(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	web, api := freePort(t), freePort(t)
	a := startEcho(t, "a")
	l := runLictor(t, serviceAt("web", web, endpoints(a)))
	conn := mustConnect(t, web)

	e := l.reload(t, serviceAt("api", api, endpoints(a))+"\nservice \"web\" {\n  lisen = 1\n}\n")
	written, err := os.ReadFile(l.file)
	must(t, err)
	before, _, _ := strings.Cut(string(written), "lisen")
	place := fmt.Sprintf("%s:%d: ", l.file, 1+strings.Count(before, "\n"))
	if text := e.field("error"); !strings.Contains(text, place) || !strings.Contains(text, "lisen") {
		t.Errorf("got %q, want the place and the argument", text)
	}
	taken, err := net.Listen("tcp", api.String())
	must(t, err)
	defer taken.Close()
	e = l.reload(t, serviceAt("api", api, endpoints(a)))
	if text := e.field("error"); !strings.Contains(text, api.String()) ||
		!strings.Contains(text, "something else listens there") {
		t.Errorf("got %q, want the address and what to do", text)
	}
	must(t, conn.echo("still there?"))
	wantCounts(t, web, map[string]int{"a": 2})
}

func TestWatchedFileIsReloaded(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	web := freePort(t)
	a, b := startEcho(t, "a"), startEcho(t, "b")
	l := launchLictor(t, serviceAt("web", web, endpoints(a)), nil, nil, "-watch")
	l.awaitReady(t)
	l.configure(t, serviceAt("web", web, endpoints(b)))
	awaitRotation(t, web, "b")
	l.configure(t, "nonsense")
	l.awaitLog(t, 0, complaint("not reloaded"))
	wantCounts(t, web, map[string]int{"b": 2})
	l.configure(t, serviceAt("web", web, endpoints(a)))
	awaitRotation(t, web, "a")
}

// steady makes requests to addr until stop is closed. Each of n goroutines pauses before each request. A request that
// fails, fails the test.
func steady(t *testing.T, addr netip.AddrPort, n int, pause time.Duration, stop <-chan struct{}) (
	requests *atomic.Int64, wait func()) {
	var all sync.WaitGroup
	requests = new(atomic.Int64)
	for range n {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
				if _, err := ask(t.Context(), addr); err != nil {
					t.Errorf("request %d: %v", requests.Load(), err)
					return
				}
				requests.Add(1)
			}
		})
	}
	return requests, all.Wait
}

func TestReloadUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	a, b := startEcho(t, "a"), startEcho(t, "b")
	c.register(t, "web", "a", a.addr)
	c.register(t, "web", "b", b.addr)
	web, api := freePort(t), freePort(t)
	// These change a setting, the name, the query, the source, and other services. The last one changes nothing.
	configs := []string{
		consulBlock(c) + serviceAt("web", web),
		consulBlock(c) + serviceAt("web", web, `idle_timeout = "5m"`),
		consulBlock(c) + serviceAt("other", web, `consul { service = "web" }`),
		consulBlock(c) + serviceAt("web", web, "consul { filter = \"Service.ID == `b`\" }") +
			serviceAt("api", api, endpoints(a)),
		serviceAt("web", web, endpoints(a, b)) + serviceAt("api", api, endpoints(b)),
		serviceAt("web", web, endpoints(b)),
		"consul {\n  address = \"http://" + c.HTTP + "\"\n}\n" + serviceAt("web", web),
	}
	l := runLictor(t, configs[0])
	stop := make(chan struct{})
	requests, wait := steady(t, web, 4, 0, stop)
	defer wait()
	defer close(stop)
	for i := 1; i <= 5*len(configs); i++ {
		l.mustReload(t, configs[i%len(configs)])
		before := requests.Load()
		eventually(t, "more requests", func() error {
			if requests.Load() < before+100 && !t.Failed() {
				return fmt.Errorf("%d", requests.Load()-before)
			}
			return nil
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("%d requests during %d reloads", requests.Load(), 5*len(configs))
}

// A hundred reloads change the queries of five out of fifty services. No request fails, and old queries do not use up
// the connections that the agent allows.
func TestFiftyServicesReloadedAHundredTimes(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	a := startEcho(t, "a")
	c.register(t, "web", "a", a.addr)
	var addrs []netip.AddrPort
	for range 50 {
		addrs = append(addrs, freePort(t))
	}
	config := func(round int) string {
		var b strings.Builder
		b.WriteString(consulBlock(c))
		for i, addr := range addrs {
			n := i
			if i < 5 {
				n = 100*round + i
			}
			b.WriteString(serviceAt(fmt.Sprint("s", i), addr, "consul {", `  service = "web"`,
				fmt.Sprintf("  filter  = \"Service.Port != %d\"", 1000+n), "}"))
		}
		return b.String()
	}
	l := runLictor(t, config(0))
	stop := make(chan struct{})
	changing, wait := steady(t, addrs[0], 1, 2*time.Millisecond, stop)
	defer wait()
	same, waitToo := steady(t, addrs[49], 1, 2*time.Millisecond, stop)
	defer waitToo()
	defer close(stop)
	for round := 1; round <= 100 && !t.Failed(); round++ {
		l.mustReload(t, config(round))
	}
	if n, m := changing.Load(), same.Load(); n < 100 || m < 100 {
		t.Errorf("%d and %d requests, want at least one for each reload", n, m)
	}
	for _, e := range l.log() {
		if strings.Contains(e.field("@message"), "http_max_conns_per_client") {
			t.Error(e)
		}
	}
}
