package lb

import (
	"net/netip"
	"testing"
)

func TestTakeIsAUseOfOneCertainEndpoint(t *testing.T) {
	b := NewRoundRobin()
	a := Endpoint{ID: "a", Addr: netip.MustParseAddrPort("127.0.0.1:1")}
	b.Configure("web", Options{MaxConnections: 1})
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: []Endpoint{a,
		{ID: "b", Addr: netip.MustParseAddrPort("127.0.0.1:2")}}}})
	first, second := b.Take("web", a), b.Take("web", a)
	if first == nil || second == nil || first.ID != "a" || second.ID != "a" {
		t.Fatalf("took %v and %v, want a twice, whatever the limit", first, second)
	}
	if _, err := b.NextEndpoint("web", netip.AddrPort{}, Tried{}); err != ErrFull {
		t.Errorf("while they are used: %v, want %v", err, ErrFull)
	}
	first.Done()
	second.Done()
	if open := b.Snapshot()[0].Open; open != 0 {
		t.Errorf("%d uses are open after all are done", open)
	}
	for _, e := range []Endpoint{{ID: "a", Addr: netip.MustParseAddrPort("127.0.0.1:2")}, {ID: "c", Addr: a.Addr}} {
		if m := b.Take("web", e); m != nil {
			t.Errorf("took %v, asked for %v", m.Endpoint, e)
		}
	}
	if b.Take("none", a) != nil {
		t.Error("took an endpoint of a service that is not there")
	}
}
