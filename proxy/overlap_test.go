package proxy

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

// An overlapIndex gives the same answer as a comparison with each listener.
func TestOverlapIndex(t *testing.T) {
	addrs := []string{"0.0.0.0:1", "[::]:1", "127.0.0.1:1", "127.0.0.2:1", "[::1]:1", "[fe80::1%a]:1", "0.0.0.0:2",
		"127.0.0.1:2", "0.0.0.0:0", "127.0.0.1:0"}
	pick := func() socketKey {
		at := netip.MustParseAddrPort(addrs[rand.IntN(len(addrs))])
		return socketKey{protocol: Protocol(rand.IntN(2)), addr: lb.Addr{AddrPort: at}}
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

// covers reports whether a listener on a also takes b's port. [::] is dual-stack, so it covers IPv4 too.
func covers(a, b netip.Addr) bool { return a.IsUnspecified() && (a.Is6() || b.Is4()) }

// overlap reports whether two different listeners are in conflict for the kernel, because one is on all addresses of
// the host.
func overlap(a, b socketKey) bool {
	at, other := a.addr.AddrPort, b.addr.AddrPort
	return a.protocol == b.protocol && at.Port() == other.Port() && at.Port() != 0 && at != other &&
		(covers(at.Addr(), other.Addr()) || covers(other.Addr(), at.Addr()))
}
