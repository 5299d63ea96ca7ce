package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

var one, two = netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")

// ask returns the index and the ports of an answer.
func ask(t *testing.T, url string) (string, []uint16) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var entries []struct{ Service struct{ Port uint16 } }
	if err := json.NewDecoder(resp.Body).Decode(&entries); err != nil {
		t.Fatal(err)
	}
	var ports []uint16
	for _, e := range entries {
		ports = append(ports, e.Service.Port)
	}
	return resp.Header.Get("X-Consul-Index"), ports
}

func TestCatalogHoldsAQueryUntilAChange(t *testing.T) {
	c := newCatalog([]netip.AddrPort{one})
	server := httptest.NewServer(c)
	defer server.Close()
	url := server.URL + "/v1/health/service/web?passing=1"
	if index, ports := ask(t, url); index != "1" || len(ports) != 1 || ports[0] != 1 {
		t.Fatalf("without an index: got index %s, ports %v", index, ports)
	}
	timer := time.AfterFunc(20*time.Millisecond, func() { c.set([]netip.AddrPort{one, two}) })
	defer timer.Stop()
	if index, ports := ask(t, url+"&index=1&wait=10s"); index != "2" || len(ports) != 2 {
		t.Errorf("held: got index %s, ports %v, want 2 and both", index, ports)
	}
	if index, ports := ask(t, url+"&index=1&wait=10s"); index != "2" || len(ports) != 2 {
		t.Errorf("an old index: got index %s, ports %v, want 2 and both", index, ports)
	}
	if index, _ := ask(t, url+"&index=2&wait=10ms"); index != "2" {
		t.Errorf("the wait is over: got index %s, want 2", index)
	}
}

func TestParseListener(t *testing.T) {
	for _, test := range []struct {
		name, line string
		addr       string
		listening  bool
	}{
		{"listens", "   0: 0100007F:46A1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 " +
			"60863 1", "127.0.0.1:18081", true},
		{"is gone but remembered", "   2: 0100007F:8357 0100007F:9EEA 06 00000000:00000000 03:00001200", "", false},
		{"cut short", "   2: 0100007F:8357", "", false},
	} {
		addr, listening := parseListener(test.line)
		if listening != test.listening || listening && addr.String() != test.addr {
			t.Errorf("%s: got %v, %v, want %s, %v", test.name, addr, listening, test.addr, test.listening)
		}
	}
}

func TestCountGoroutines(t *testing.T) {
	const dump = `SIGQUIT: quit
PC=0x47 m=0 sigcode=0

goroutine 0 gp=0xf5e940 m=0 mp=0xf5fb20 [idle]:
runtime.futex(...)
goroutine 1 gp=0x25e118e8c1e0 m=nil [select, 2 minutes]:
main.main()
goroutine 18 gp=0x25e118e8c1e1 m=nil [GC worker (idle)]:
goroutine 19 gp=0x25e118e8c1e1 m=nil [GC worker (idle), 2 minutes]:
`
	if got := countGoroutines(dump); got != 2 {
		t.Errorf("got %d, want 2", got)
	}
}
