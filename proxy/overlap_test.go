package proxy

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// An index of listeners says what a look at each of them would.
func TestOverlapIndex(t *testing.T) {
	addrs := []string{"0.0.0.0:1", "[::]:1", "127.0.0.1:1", "127.0.0.2:1", "[::1]:1", "[fe80::1%a]:1", "0.0.0.0:2",
		"127.0.0.1:2", "0.0.0.0:0", "127.0.0.1:0"}
	pick := func() socketKey {
		return socketKey{protocol: Protocol(rand.IntN(2)), addr: netip.MustParseAddrPort(addrs[rand.IntN(len(addrs))])}
	}
	for range 5000 {
		set := map[socketKey]bool{}
		for range rand.IntN(5) {
			set[pick()] = true
		}
		key, want := pick(), false
		for other := range set {
			want = want || overlap(key, other)
		}
		if got := overlapsOf(set).overlaps(key); got != want {
			t.Fatalf("%v among %v: got %v, want %v", key, set, got, want)
		}
	}
}

// covers tells whether a listener on a takes b's port too: [::] is dual-stack, and so covers IPv4 as well.
func covers(a, b netip.Addr) bool { return a.IsUnspecified() && (a.Is6() || b.Is4()) }

// overlap tells whether the kernel takes two different listeners for in each other's way: one is on all addresses of
// the host.
func overlap(a, b socketKey) bool {
	return a.protocol == b.protocol && a.addr.Port() == b.addr.Port() && a.addr.Port() != 0 && a.addr != b.addr &&
		(covers(a.addr.Addr(), b.addr.Addr()) || covers(b.addr.Addr(), a.addr.Addr()))
}
