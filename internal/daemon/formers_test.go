package daemon

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// usesOf returns n uses of an endpoint of a service, n connections of one client, and n of one identity.
func usesOf(service string, n int64) []upgrade.Use {
	return []upgrade.Use{
		{Service: service, ID: "a", Address: "10.0.0.1:80", Count: n},
		{Service: service, Client: netip.MustParseAddr("10.1.1.1"), Count: n},
		{Service: service, Identity: "spiffe://test/web", Count: n},
	}
}

func TestFormersAddUp(t *testing.T) {
	endpoints, clients := map[string]int64{}, map[string]int{}
	f := newFormers(
		func(service string, uses map[lb.UseKey]int64) {
			endpoints[service] = uses[lb.UseKey{ID: "a", Address: "10.0.0.1:80"}]
		},
		func(service string, counts map[proxy.ClientKey]int) {
			clients[service] = counts[proxy.ClientKey{Addr: netip.MustParseAddr("10.1.1.1")}]
			if n := counts[proxy.ClientKey{Identity: "spiffe://test/web"}]; n != clients[service] {
				t.Errorf("got %d of the identity, want as many as of the client: %d", n, clients[service])
			}
		}, &ledger{})
	for _, tt := range []struct {
		name     string
		do       func()
		web, dns int64
	}{
		{"two processes", func() {
			f.begin([]upgrade.ProcessUses{{PID: 1, Uses: append(usesOf("web", 3), usesOf("dns", 1)...)},
				{PID: 2, Uses: usesOf("web", 4)}})
		}, 7, 1},
		{"one changes", func() { f.told(1, usesOf("web", 1), false) }, 5, 1},
		{"one has nothing left there", func() { f.told(2, usesOf("web", 0), false) }, 1, 1},
		{"one tells all", func() { f.told(1, usesOf("web", 2), true) }, 2, 0},
		{"the services are new", func() { clear(endpoints); clear(clients); f.reapply() }, 2, 0},
		{"one has ended", func() { f.follow(nil, nil) }, 0, 0},
	} {
		tt.do()
		if endpoints["web"] != tt.web || endpoints["dns"] != tt.dns || int64(clients["web"]) != tt.web ||
			int64(clients["dns"]) != tt.dns {
			t.Errorf("%s: got %v and %v, want web %d, dns %d", tt.name, endpoints, clients, tt.web, tt.dns)
		}
	}
	if all := f.uses(); len(all) != 0 {
		t.Errorf("got %v of no process", all)
	}
}

// A freed slot of a service with waiting clients stays counted, because a waiting client may take it at once.
func TestUsesAreKeptWhileClientsWait(t *testing.T) {
	at := func(service, id string) useOf { return useOf{Service: service, ID: id} }
	before := map[useOf]int64{at("web", "a"): 5, at("web", ""): 2, at("dns", "b"): 3}
	now := map[useOf]int64{at("web", "a"): 4, at("web", ""): 1, at("dns", "b"): 2}
	keepWhileWaiting(before, now)
	want := map[useOf]int64{at("web", "a"): 5, at("web", ""): 1, at("dns", "b"): 2}
	if !maps.Equal(now, want) {
		t.Errorf("got %v, want %v", now, want)
	}
	delete(now, at("web", "")) // no client waits any more
	now[at("web", "a")] = 0
	if keepWhileWaiting(before, now); now[at("web", "a")] != 0 {
		t.Errorf("got %v after the last has left the queue", now)
	}
}
