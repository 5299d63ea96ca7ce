//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// A greeter is an instance that sends its name to each client and closes. It can be killed, and started again at the
// same address. Connections that it has accepted before still get the name, and those in its queue are reset.
type greeter struct {
	name     string
	addr     netip.AddrPort
	accepted atomic.Int64
	kill     func()
}

func startGreeter(t testing.TB, name string) *greeter {
	t.Helper()
	g := &greeter{name: name, addr: freePort(t)} // no other test gets this port while the greeter is dead
	g.start(t)
	return g
}

func (g *greeter) start(t testing.TB) {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(g.addr))
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			g.accepted.Add(1)
			running.Go(func() {
				_, _ = fmt.Fprintln(conn, g.name)
				_ = conn.Close()
			})
		}
	})
	g.kill = sync.OnceFunc(func() { _ = l.Close(); running.Wait() })
	t.Cleanup(func() { g.kill() })
}

// startResetter starts an instance that accepts connections and resets them.
func startResetter(t testing.TB) (addr netip.AddrPort, accepted *atomic.Int64) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	accepted = &atomic.Int64{}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			accepted.Add(1)
			_ = conn.SetLinger(0)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort(), accepted
}

// hangingAddr returns an address where dials get no answer, as behind a firewall that drops packets. It is a listener
// whose queue is full.
func hangingAddr(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	must(t, err)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, syscall.Listen(fd, 0))
	bound, err := syscall.Getsockname(fd)
	must(t, err)
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(bound.(*syscall.SockaddrInet4).Port))
	for range 8 {
		conn, err := net.DialTimeout("tcp", addr.String(), 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the queue of a listener does not fill")
	panic("unreachable")
}

// load connects many clients, some at a time. load returns how many each instance served, and how many clients failed.
// load calls during, unless it is nil, after a quarter of the clients.
func load(t *testing.T, addr netip.AddrPort, clients int, during func()) (served map[string]int, failed int) {
	t.Helper()
	const atOnce = 16
	var mu sync.Mutex
	served = map[string]int{}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(clients) {
					return
				}
				if n == int64(clients)/4 && during != nil {
					during()
				}
				name, err := ask(t.Context(), addr)
				mu.Lock()
				if err != nil {
					if failed++; failed < 10 {
						t.Logf("client %d: %v", n, err)
					}
				} else {
					served[name]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return served, failed
}

// An instance that has failed is not noticed by clients, even if Consul does not know of the failure.
func TestInstanceKilledUnderLoadIsNoticedByNoClient(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	instances := []*greeter{startGreeter(t, "a"), startGreeter(t, "b"), startGreeter(t, "c")}
	for _, i := range instances {
		c.register(t, "web", i.name, i.addr)
	}
	l := runLictor(t, consulBlock(c)+service("web"))
	const clients = 10000
	served, failed := load(t, l.addr(t, "web"), clients, instances[1].kill)
	if failed > 0 {
		t.Errorf("%d clients of %d failed, want none", failed, clients)
	}
	if served["a"] < clients/3 || served["c"] < clients/3 {
		t.Errorf("got %v, want the others to have taken over", served)
	}
	instances[1].start(t)
	awaitRotation(t, l.addr(t, "web"), "a", "b", "c")
}

func TestInstanceThatResetsIsNoticedByNoClient(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	reset, accepted := startResetter(t)
	c.register(t, "web", "a", startGreeter(t, "a").addr)
	c.register(t, "web", "b", reset)
	c.register(t, "web", "c", startGreeter(t, "c").addr)
	l := runLictor(t, consulBlock(c)+service("web"))
	const clients = 3000
	if _, failed := load(t, l.addr(t, "web"), clients, nil); failed > 0 {
		t.Errorf("%d clients of %d failed, want none", failed, clients)
	}
	// All clients of one moment may reach it before its failure is known. Then single clients try it, ever less often.
	if n := accepted.Load(); n < 2 || n > 100 {
		t.Errorf("it was asked %d times, want two and a few", n)
	}
}

func TestInstanceThatHangsIsNoticedByNoClient(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startGreeter(t, "a").addr)
	c.register(t, "web", "b", hangingAddr(t))
	c.register(t, "web", "c", startGreeter(t, "c").addr)
	l := runLictor(t, consulBlock(c)+service("web"))
	// Each dial to it takes a second. If it were not left out, 3000 clients, 16 at a time, would take over a minute.
	const clients = 3000
	done := make(chan struct{})
	var failed int
	go func() {
		defer close(done)
		_, failed = load(t, l.addr(t, "web"), clients, nil)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("clients are served as if the instance were not left out")
		<-done
	}
	if failed > 0 {
		t.Errorf("%d clients of %d failed, want none", failed, clients)
	}
}

// When all instances are ejected, all are used. The first one that works again therefore serves at once, before its
// ejection ends.
func TestAllInstancesDeadIsNoReasonToWait(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	var instances []*greeter
	for _, name := range []string{"a", "b", "c", "d"} {
		i := startGreeter(t, name)
		c.register(t, "web", name, i.addr)
		instances = append(instances, i)
	}
	l := runLictor(t, consulBlock(c)+service("web"))
	web := l.addr(t, "web")
	awaitRotation(t, web, "a", "b", "c", "d")
	for _, i := range instances {
		i.kill()
	}
	for range 20 {
		if name, err := ask(t.Context(), web); err == nil {
			t.Fatalf("%s answered though all are dead", name)
		}
	}
	instances[0].start(t)
	instances[1].start(t)
	served, failed := load(t, web, 200, nil)
	if failed > 0 || served["a"] == 0 || served["b"] == 0 {
		t.Errorf("%d failed, got %v, want a and b to serve all at once", failed, served)
	}
}

func TestPoliciesAreWired(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	static := fmt.Sprintf("static {\n    endpoints = [%q, %q, %q]\n  }", startEcho(t, "a").addr,
		startEcho(t, "b").addr, startEcho(t, "c").addr)
	l := runLictor(t, service("hash", `balance = "source_hash"`, static)+
		service("stick", `balance = "random_two"`, `sticky = "1h"`, static)+
		service("least", `balance = "least_connections"`, static)+
		service("full", `max_connections_per_endpoint = 1`, `queue_timeout = "1m"`, static)+
		service("closed", `max_connections = 1`, `queue_timeout = "0s"`, static))
	for _, name := range []string{"hash", "stick"} {
		if got := count(t, l.addr(t, name), 20); len(got) != 1 {
			t.Errorf("%s: one client got %v, want one instance", name, got)
		}
	}

	least := l.addr(t, "least")
	var idle []*client
	for range 12 {
		if conn := mustConnect(t, least); conn.name == "b" {
			idle = append(idle, conn)
		}
	}
	for _, conn := range idle {
		must(t, conn.Close())
	}
	eventually(t, "the one that has become idle serves three in a row", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for range 3 {
			conn, err := connect(ctx, least)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			if conn.name != "b" {
				return fmt.Errorf("%s served", conn.name)
			}
		}
		return nil
	})

	full := l.addr(t, "full")
	one, _, _ := mustConnect(t, full), mustConnect(t, full), mustConnect(t, full)
	answer := make(chan string, 1)
	go func() {
		name, err := ask(t.Context(), full)
		answer <- fmt.Sprint(name, err)
	}()
	select {
	case got := <-answer:
		t.Errorf("got %s though there is no room", got)
	case <-time.After(100 * time.Millisecond):
	}
	must(t, one.Close())
	if got := <-answer; got != one.name+"<nil>" {
		t.Errorf("got %s, want %s, where there is room", got, one.name)
	}

	mustConnect(t, l.addr(t, "closed"))
	if name, err := ask(t.Context(), l.addr(t, "closed")); err == nil {
		t.Errorf("got %s, want a refusal", name)
	}
}

// A check finds a dead instance without a client, and the first client gets an instance that works.
func TestCheckFindsDeadInstances(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	a, b := startGreeter(t, "a"), startGreeter(t, "b")
	l := runLictor(t, service("web", fmt.Sprintf("static {\n    endpoints = [%q, %q]\n  }", a.addr, b.addr),
		`check {`, `  interval = "20ms"`, `}`))
	eventually(t, "both are checked", func() error {
		if a.accepted.Load() < 3 || b.accepted.Load() < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	b.kill()
	wantOnly := func() error {
		if got := count(t, l.addr(t, "web"), 10); got["a"] != 10 {
			return fmt.Errorf("got %v", got)
		}
		return nil
	}
	eventually(t, "only a serves", wantOnly)
	b.start(t)
	awaitRotation(t, l.addr(t, "web"), "a", "b")
}
