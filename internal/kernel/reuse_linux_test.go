//go:build amd64 || arm64

package kernel

import (
	"net"
	"net/netip"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// TestReusedIndexIsNotThatOfEarlierConnections checks that connections of a service that was removed neither count for
// the endpoint that gets the index of theirs, nor are cut with it.
func TestReusedIndexIsNotThatOfEarlierConnections(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	earlier, later := newBackend(t, "127.0.0.1:0"), newBackend(t, "127.0.0.1:0")
	set(t, p, Service{Name: "removed", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: earlier.addr}}})
	index := p.table.byName["removed"].endpoints[place{0, earlier.addr}]
	dial := func() net.Conn {
		c, err := net.Dial("tcp", front.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	ends, stays := dial(), dial()
	if err := p.Remove("removed"); err != nil {
		t.Fatal(err)
	}
	p.table.freeEndpoints = []uint32{index}
	set(t, p, Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: later.addr}}})
	if got := p.table.byName["web"].endpoints[place{0, later.addr}]; got != index {
		t.Fatalf("the endpoint has the index %d, want %d", got, index)
	}
	if err := echo(ends); err != nil {
		t.Fatal(err)
	}
	_ = ends.Close()
	testproc.Await(t, "the end of the connection", func() bool { return earlier.open.Load() == 1 })
	last := dial()
	wantCounters(t, p, Counters{Picks: 1, Open: 1, Connections: 1})
	if n, err := p.Cut("web", []uint64{0}); err != nil {
		testproc.Cannot(t, "sockets cannot be destroyed", err)
	} else if n != 1 {
		t.Errorf("%d sockets were destroyed, want 1", n)
	}
	if err := echo(stays); err != nil {
		t.Errorf("a connection of the service that was removed: %v", err)
	}
	if err := echo(last); err == nil {
		t.Error("the connection of the endpoint was not cut")
	}
}
