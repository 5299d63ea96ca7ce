package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// The primary of a database moves. Of 1,400 sockets of three services and 100 that clients have connected to the old
// primary themselves, exactly those are cut that are of the service which wants it. The old primary lives on.
func TestKernelPathCutsExactlyItsOwn(t *testing.T) {
	t.Parallel()
	findConsul(t)
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	c := startConsul(t, testconsul.Options{})
	at := map[string]netip.AddrPort{"a": startEcho(t, "a").addr, "b": startEcho(t, "b").addr}
	c.register(t, "db", "a", at["a"], tags("primary"))
	c.register(t, "db", "b", at["b"], tags("replica"))
	primary := "consul {\nservice = \"db\"\ntags = [\"primary\"]\n}"
	l := runLictor(t, onPath(group, consulBlock(c),
		service("cuts", `on_leave = "cut"`, primary),
		service("finishes", primary),
		service("any", `on_leave = "cut"`, `consul { service = "db" }`)))
	must(t, group.Enter())
	open := func(to netip.AddrPort, n int) []*client {
		var all []*client
		for range n {
			all = append(all, mustConnect(t, to))
		}
		return all
	}
	var cuts, others []*client
	frozen(t, l.Process, func() {
		cuts = open(l.addr(t, "cuts"), 1000)
		others = append(open(l.addr(t, "finishes"), 200), open(l.addr(t, "any"), 200)...)
		others = append(others, open(at["a"], 100)...)
	})
	c.register(t, "db", "b", at["b"], tags("primary"))
	c.register(t, "db", "a", at["a"], tags("replica"))
	began := time.Now()
	for _, one := range cuts {
		wantCut(t, one)
	}
	t.Logf("%d connections were cut within %v", len(cuts), time.Since(began))
	for _, one := range others {
		one.mustEcho(t, "still there?")
	}
	wantCounts(t, l.addr(t, "cuts"), map[string]int{"b": 5})
}

// A drained instance has not left: connections to it stay, whatever on_leave says, and only new clients go elsewhere. A
// socket that is connected over UDP ends, because it would send there for ever. If the instance leaves later, or
// another one is put into maintenance, on_leave applies.
func TestKernelPathDrains(t *testing.T) {
	t.Parallel()
	findConsul(t)
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b", "c"} {
		c.register(t, "web", name, startEcho(t, name).addr)
		c.register(t, "dns", "dns-"+name, startUDP(t, name).addr)
	}
	l := runLictor(t, onPath(group, consulBlock(c), service("web", `on_leave = "cut"`, `consul { drop_hold = "0s" }`),
		service("dns", udp)))
	web, dns := l.addr(t, "web"), l.addr(t, "dns")
	must(t, group.Enter())
	l.awaitAnswer(t, "status web", 0, "3 in, 0 out", "clients on this host connect straight to the endpoints")
	awaitRotation(t, web, "a", "b", "c")
	open := map[string]*client{}
	frozen(t, l.Process, func() {
		for range 3 {
			one := mustConnect(t, web)
			open[one.name] = one
		}
	})
	connected := dialUDP(t, dns)
	for connected.awaitAnswer(t, "a", "b", "c") != "a" {
		connected = dialUDP(t, dns)
	}
	l.awaitAnswer(t, "drain test/dns-a", 0, "drained")
	eventually(t, "the socket that is connected to a is ended", func() error {
		if _, err := connected.exchange(who); !errors.Is(err, syscall.ECONNABORTED) &&
			!errors.Is(err, syscall.EDESTADDRREQ) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	l.awaitAnswer(t, "drain test/a", 0, "drained")
	awaitRotation(t, web, "b", "c")
	must(t, c.api.Agent().EnableServiceMaintenance("b", "new disk"))
	wantCut(t, open["b"])
	open["a"].mustEcho(t, "drained")
	c.deregister(t, "a")
	wantCut(t, open["a"])
	open["c"].mustEcho(t, "the last one")
}

// wantCut waits until the kernel path has cut a connection.
func wantCut(t testing.TB, c *client) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	if _, err := c.reader.ReadByte(); !errors.Is(err, syscall.ECONNABORTED) {
		t.Fatalf("a connection to %s: got %v, want aborted", c.name, err)
	}
}

// Without CAP_PERFMON, programs cannot cut connections. Lictor cuts the same ones by itself, and none else.
func TestKernelPathCutsWithFewerRights(t *testing.T) {
	t.Parallel()
	findConsul(t)
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		testproc.Cannot(t, "rights cannot be taken away", err)
	}
	c := startConsul(t, testconsul.Options{})
	a, b := startEcho(t, "a"), startEcho(t, "b")
	c.register(t, "db", "a", a.addr, checked)
	c.register(t, "db", "b", b.addr)
	l := startLictor(t, onPath(group, consulBlock(c), service("cuts", `on_leave = "cut"`, `consul { service = "db" }`),
		service("finishes", `consul { service = "db" }`)),
		"setpriv", "--bounding-set=-all,+bpf,+net_admin", "--inh-caps=-all")
	for _, name := range []string{"cuts", "finishes"} {
		l.awaitAnswer(t, "status "+name, 0, "2 in, 0 out", "clients on this host connect straight to the endpoints")
	}
	must(t, group.Enter())
	var cut, others []*client
	frozen(t, l.Process, func() {
		for range 100 {
			one := mustConnect(t, l.addr(t, "cuts"))
			if others = append(others, mustConnect(t, l.addr(t, "finishes"))); one.name == "a" {
				cut = append(cut, one)
			} else {
				others = append(others, one)
			}
		}
		others = append(others, mustConnect(t, a.addr))
	})
	c.setHealth(t, "a", "critical")
	for _, one := range cut {
		wantCut(t, one)
	}
	for _, one := range others {
		one.mustEcho(t, "still there?")
	}
	if len(cut) != 50 {
		t.Errorf("%d connections were cut, want 50", len(cut))
	}
}
