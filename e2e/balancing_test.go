//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// static returns a static block with these instances.
func static(addrs ...netip.AddrPort) string {
	var list []string
	for _, a := range addrs {
		list = append(list, fmt.Sprintf("%q", a))
	}
	return "static { endpoints = [" + strings.Join(list, ", ") + "] }"
}

// With slow_start, a new instance gets a tenth of its share at first, and so does an instance that was ejected. Without
// slow_start it gets its whole share at once.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	a, b, d := startGreeter(t, "a"), startGreeter(t, "b"), startGreeter(t, "d")
	c.register(t, "web", "a", a.addr)
	c.register(t, "web", "b", b.addr)
	web := freePort(t)
	config := func(slow string) string {
		return consulBlock(c) + serviceAt("web", web, fmt.Sprintf("slow_start = %q", slow))
	}
	l := runLictor(t, config("1h"))
	awaitRotation(t, web, "a", "b") // the first instances have their share at once
	const clients, fair = 300, 100
	wantGently := func(got map[string]int, who string) {
		t.Helper()
		if n := got[who]; n < fair/20 || n > fair/4 {
			t.Errorf("%s has %d of %d clients, want about %d", who, n, clients, fair/10)
		}
	}

	c.register(t, "web", "d", d.addr)
	l.awaitAnswer(t, "explain web", 0, "3 of 3 known endpoints", "at 10% of its share")
	wantGently(count(t, web, clients), "d")
	l.mustReload(t, config("0s"))
	awaitRotation(t, web, "a", "b", "d")

	l.mustReload(t, config("1h"))
	a.kill()
	load(t, web, 50, nil)
	l.awaitAnswer(t, "explain web", 0, "2 of 3 known endpoints", "ejected")
	a.start(t)
	eventually(t, "it is tried, and comes back", func() error {
		if _, err := ask(t.Context(), web); err != nil {
			return err
		}
		if _, out := l.ask(t, "explain", "web"); !strings.Contains(out, "3 of 3 known endpoints") {
			return errors.New(out)
		}
		return nil
	})
	wantGently(count(t, web, clients), "a")
}

// A sickUDP is a UDP server that gives wrong answers while it is sick.
type sickUDP struct {
	addr netip.AddrPort
	sick atomic.Bool
}

func startSickUDP(t *testing.T, name string) *sickUDP {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	s := &sickUDP{addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, client, err := conn.ReadFromUDPAddrPort(buf)
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil:
			case s.sick.Load():
				_, _ = conn.WriteToUDPAddrPort([]byte("sick"), client)
			case bytes.Equal(buf[:n], who):
				_, _ = conn.WriteToUDPAddrPort([]byte(name), client)
			default:
				_, _ = conn.WriteToUDPAddrPort(buf[:n], client)
			}
		}
	})
	t.Cleanup(func() { _ = conn.Close(); running.Wait() })
	return s
}

// A check of a UDP service finds an instance that gives wrong answers and an instance that does not exist, before a
// client reaches them. It also finds that an instance is well again.
func TestUDPCheckFindsInstancesThatAreNoGood(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	good, sick := startUDP(t, "good"), startSickUDP(t, "sick")
	sick.sick.Store(true)
	gone := startUDP(t, "gone")
	gone.close()
	l := runLictor(t, service("dns", udp, static(good.addr, sick.addr, gone.addr), `min_available = "0%"`,
		`check {`, `  interval = "20ms"`, `  timeout = "1s"`, `  send = "are you well?"`, `  expect = "are you"`, `}`))
	dns := l.addr(t, "dns")
	wantServed := func(what string, names ...string) {
		t.Helper()
		eventually(t, what, func() error {
			got := map[string]int{}
			for range 10 {
				answer, err := dialUDP(t, dns).exchange(who) // each socket is another client with its own session
				if err != nil {
					return err
				}
				got[string(answer)]++
			}
			if len(got) != len(names) {
				return fmt.Errorf("got %v", got)
			}
			for _, name := range names {
				if got[name] == 0 {
					return fmt.Errorf("got %v", got)
				}
			}
			return nil
		})
	}
	wantServed("only the good one serves", "good")
	l.awaitAnswer(t, "explain dns", 0, "1 of 3 known endpoints", "unfit", "refused")
	sick.sick.Store(false)
	wantServed("the one that was sick serves too", "good", "sick")
}

// When all instances fail, each client tries one instance, and few clients try a second one.
func TestRetryBudgetSparesAClusterThatFails(t *testing.T) {
	t.Parallel()
	var addrs []netip.AddrPort
	var accepted []*atomic.Int64
	for range 4 {
		addr, n := startResetter(t)
		addrs, accepted = append(addrs, addr), append(accepted, n)
	}
	l := runLictor(t, service("web", static(addrs...)))
	const clients = 4000
	began := time.Now()
	if _, failed := load(t, l.addr(t, "web"), clients, nil); failed != clients {
		t.Errorf("%d of %d clients failed, want all", failed, clients)
	}
	dials := int64(0)
	for _, n := range accepted {
		dials += n.Load()
	}
	// Retries are limited to a fifth of the clients, plus ten a second, of which a hundred may be saved up. The first
	// sixteen clients come at once, before a failure is known, and their retries are not limited.
	most := clients + clients/5 + 100 + 10*int64(time.Since(began).Seconds()+1) + 3*16
	if dials < clients || dials > most {
		t.Errorf("%d clients made %d connections to instances, want at least one each, and at most %d",
			clients, dials, most)
	}
}

// With max_fails = "never", an instance that fails keeps its turn. A client that reached it gets another instance.
func TestMaxFailsNeverLeavesNoInstanceOut(t *testing.T) {
	t.Parallel()
	reset, accepted := startResetter(t)
	a, b := startGreeter(t, "a"), startGreeter(t, "b")
	l := runLictor(t, service("web", static(a.addr, b.addr, reset), `max_fails = "never"`))
	const clients = 900
	served, failed := load(t, l.addr(t, "web"), clients, nil)
	if failed > 0 {
		t.Errorf("%d clients failed, want none: %v", failed, served)
	}
	if n := accepted.Load(); n < clients/3-16 {
		t.Errorf("the instance that fails was tried %d times, want a third of %d", n, clients)
	}
	if _, out := l.ask(t, "explain", "web"); strings.Contains(out, "ejected") {
		t.Errorf("one is ejected:\n%s", out)
	}
}
