package e2e

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// The primary of a database moves. Of 1,000 sockets of three services and 100 that clients have connected to the old
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
		cuts = open(l.addr(t, "cuts"), 600)
		others = append(open(l.addr(t, "finishes"), 200), open(l.addr(t, "any"), 200)...)
		others = append(others, open(at["a"], 100)...)
	})
	c.register(t, "db", "b", at["b"], tags("primary"))
	c.register(t, "db", "a", at["a"], tags("replica"))
	began := time.Now()
	for _, one := range cuts {
		must(t, one.SetReadDeadline(time.Now().Add(patience)))
		if _, err := one.reader.ReadByte(); !errors.Is(err, syscall.ECONNABORTED) {
			t.Fatalf("a connection to %s: got %v, want aborted", one.name, err)
		}
	}
	t.Logf("%d connections were cut within %v", len(cuts), time.Since(began))
	for _, one := range others {
		one.mustEcho(t, "still there?")
	}
	wantCounts(t, l.addr(t, "cuts"), map[string]int{"b": 5})
}
