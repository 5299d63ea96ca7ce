package lb

import (
	"net/netip"
	"testing"
)

func TestClientOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7":               "192.0.2.7",
		"::ffff:192.0.2.7":        "192.0.2.7",
		"127.0.0.1":               "127.0.0.1",
		"2001:db8:1:2:3:4:5:6":    "2001:db8:1:2::",
		"2001:db8:1:2::":          "2001:db8:1:2::",
		"2001:db8:1:3:3:4:5:6":    "2001:db8:1:3::",
		"::1":                     "::1",
		"fe80::1%eth0":            "fe80::1%eth0",
		"fd12:3456:789a:1::a":     "fd12:3456:789a:1::a",
		"2001:db8::1%unsupported": "2001:db8::",
	} {
		if got := ClientOf(netip.MustParseAddr(addr)); got != netip.MustParseAddr(want) {
			t.Errorf("the client at %s is %s, want %s", addr, got, want)
		}
	}
	if got := ClientOf(netip.Addr{}); got.IsValid() {
		t.Errorf("the client at no address is %s", got)
	}
}
