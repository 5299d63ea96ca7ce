package config

import (
	"net/netip"
	"testing"
	"time"
)

// UnmarshalText reads what MarshalText writes for the API.
func TestTextsAreReadAgain(t *testing.T) {
	for _, want := range []Leave{LeaveFinish, LeaveCut, Leave(30 * time.Second)} {
		text, _ := want.MarshalText()
		var got Leave
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, want := range []StaticEndpoint{
		{Addr: netip.MustParseAddrPort("10.0.0.5:80")}, {Addr: netip.MustParseAddrPort("[2001:db8::7]:80")},
		{Host: "db.example.com", Addr: netip.AddrPortFrom(netip.Addr{}, 5432)}, {Path: "/run/pg.sock"},
	} {
		text, err := want.MarshalText()
		var got StaticEndpoint
		if err != nil || got.UnmarshalText(text) != nil || got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
	var l Leave
	var e StaticEndpoint
	if l.UnmarshalText([]byte("soon")) == nil || e.UnmarshalText([]byte("db")) == nil ||
		e.UnmarshalText([]byte("db:x")) == nil {
		t.Error("invalid text was accepted")
	}
}
