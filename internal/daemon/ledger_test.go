package daemon

import (
	"os"
	"testing"

	"github.com/lictor-proxy/lictor/internal/kernel"
	"github.com/lictor-proxy/lictor/proxy"
)

// tallyOf returns a tally with n connections on each path.
func tallyOf(n int64) tally {
	return tally{Forwarded: &proxy.Stats{Connections: n},
		Kernel: &kernelTotals{Counters: kernel.Counters{Connections: uint64(n), Open: 7}, Cut: n}}
}

// TestCountersGoOnOverUpgrades checks the sums of a process that has replaced two, while these report, end, and while
// it is replaced itself.
func TestCountersGoOnOverUpgrades(t *testing.T) {
	var first, l ledger
	dns := tally{Forwarded: &proxy.Stats{Sessions: 2}}
	first.told(9, changedTallies(nil, map[string]tally{"web": tallyOf(1), "dns": dns}))
	if err := l.read(first.export(map[string]tally{"web": tallyOf(10)})); err != nil {
		t.Fatal(err)
	}
	wants := func(when string, l *ledger, want int64) {
		t.Helper()
		got := l.of("web")
		if got.Forwarded == nil || got.Forwarded.Connections != want || got.Kernel.Connections != uint64(want) ||
			got.Kernel.Cut != want || got.Kernel.Open != 0 {
			t.Errorf("%s: got %+v, %+v, want %d", when, got.Forwarded, got.Kernel, want)
		}
		if got := l.of("dns"); got.Forwarded.Sessions != 2 || got.Kernel != nil {
			t.Errorf("%s: the other service has %+v", when, got)
		}
	}
	wants("at first", &l, 11)
	before := map[string]tally{"web": tallyOf(10), "dns": tallyOf(1)}
	changed := changedTallies(before, map[string]tally{"web": tallyOf(15), "dns": tallyOf(1)})
	for range 2 { // a report has sums, so it may come again
		l.told(os.Getpid(), changed)
		wants("after a report", &l, 16)
	}
	for range 2 {
		l.ended(os.Getpid())
		l.ended(9)
		wants("after the end of both", &l, 16)
	}
	var next ledger
	if err := next.read(l.export(map[string]tally{"web": tallyOf(4)})); err != nil {
		t.Fatal(err)
	}
	wants("in the next process", &next, 20)
	if text := changedTallies(before, before); text != nil {
		t.Errorf("nothing has changed: got %s", text)
	}
	next.told(9, []byte("null"))
	next.told(9, nil)
	if err := next.read(nil); err != nil {
		t.Error(err)
	}
	wants("after reports of an earlier version", &next, 20)
	if err := next.read([]byte("[]")); err == nil {
		t.Error("no error for counters of another form")
	}
}

// TestSuccessorShowsTheKernelPathOfEarlierProcesses checks that counters of earlier processes show, also in a process
// in which no service asks for the kernel path any more.
func TestSuccessorShowsTheKernelPathOfEarlierProcesses(t *testing.T) {
	x := keepKernel(t)
	x.earlier.told(9, changedTallies(nil, map[string]tally{"web": tallyOf(3)}))
	x.use(t, pathOff)
	p := x.shown()["web"]
	if c := p.Counters; p.Kernel || c == nil || c.Connections != 3 || c.EndedLeft != 3 {
		t.Errorf("while it is off: %+v, %+v", p, c)
	}
	if p := x.shown()["db"]; p.Counters != nil {
		t.Errorf("a service that was never on the path: %+v", p.Counters)
	}
	x.update("web", at("127.0.0.1:1"))
	x.use(t, pathOfTwo)
	x.note.mu.Lock()
	x.note.counters = kernel.Counters{Connections: 5, Open: 2}
	x.note.mu.Unlock()
	if c := x.shown()["web"].Counters; c.Connections != 8 || c.ConnectionsActive != 2 {
		t.Errorf("on the path: %+v", c)
	}
	if got, want := x.totals()["web"], (kernelTotals{Counters: kernel.Counters{Connections: 5}}); got != want {
		t.Errorf("this process has counted %+v, want %+v", got, want)
	}
}
