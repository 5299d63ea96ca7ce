package lb

import (
	"encoding/json"
	"net/netip"
	"testing"
)

func TestEndpointsSurviveJSON(t *testing.T) {
	for _, e := range []Endpoint{
		{ID: "n/a", Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 3},
		{ID: "b", Addr: netip.MustParseAddrPort("[fe80::1%eth0]:80")},
		{ID: "c", Host: "db.example.com", Addr: netip.AddrPortFrom(netip.Addr{}, 5432)},
		{ID: "d", Path: "/run/pg.sock", Weight: 1},
		{ID: "e", Addr: netip.MustParseAddrPort("10.0.0.1:80"), ServerName: "web.test"},
		{ID: "f", Addr: netip.MustParseAddrPort("10.0.0.1:80"), Identity: "/ns/default/dc/dc1/svc/web"},
		{},
	} {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var got Endpoint
		if err := json.Unmarshal(text, &got); err != nil || got != e {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
}
