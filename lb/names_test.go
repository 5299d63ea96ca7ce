package lb

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lictor-proxy/lictor/internal/testdns"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// lookUpOne returns the address of a name that has one address.
func lookUpOne(t *testing.T, r *Resolver, name string) netip.Addr {
	t.Helper()
	addrs, err := r.Lookup(t.Context(), name)
	if err != nil || len(addrs) != 1 {
		t.Fatalf("got %v, %v, want one address", addrs, err)
	}
	return addrs[0]
}

// snapshotOf returns what r knows about a name.
func snapshotOf(r *Resolver, name string) NameSnapshot {
	n, _ := r.Name(name)
	return n
}

// While name servers are silent or fail, the Resolver uses the known addresses, and callers do not wait long.
func TestResolverKeepsTheLastGoodAddresses(t *testing.T) {
	s := testdns.Start(t, goodNames)
	for _, tt := range []struct {
		name  string
		fails func()
	}{
		{"silent", func() { s.Answer(func(string) []netip.Addr { return nil }) }},
		{"server failure", func() { s.Code(dnsmessage.RCodeServerFailure) }},
		{"refused", func() { s.Code(dnsmessage.RCodeRefused) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.Answer(goodNames)
			s.Code(dnsmessage.RCodeSuccess)
			r := newResolver(t, 4)
			lookUpOne(t, r, "good.test")
			tt.fails()
			asked := s.Asked("good.test")
			testproc.Await(t, "it is looked up again", func() bool {
				if got := lookUpOne(t, r, "good.test"); got != loopback4[0] {
					t.Errorf("got %v, want %v", got, loopback4[0])
				}
				return s.Asked("good.test") > asked
			})
			if tt.name != "silent" { // package net takes 10 s to report silence
				testproc.Await(t, "the failure shows", func() bool {
					lookUpOne(t, r, "good.test")
					return snapshotOf(r, "good.test").Err != ""
				})
			}
		})
	}
}

// The Resolver believes that a name does not exist only after two such answers.
func TestResolverDoubtsThatANameIsGone(t *testing.T) {
	s := testdns.Start(t, goodNames)
	r := newResolver(t, 4)
	lookUpOne(t, r, "good.test")
	s.Code(dnsmessage.RCodeNameError)
	testproc.Await(t, "the name is denied", func() bool {
		lookUpOne(t, r, "good.test")
		return r.Lookups().Denied == 1
	})
	lookUpOne(t, r, "good.test") // one answer is not enough
	testproc.Await(t, "the name is gone", func() bool {
		_, err := r.Lookup(t.Context(), "good.test")
		var dns *net.DNSError
		return errors.As(err, &dns) && dns.IsNotFound
	})
	if _, known := r.Name("good.test"); known {
		t.Error("a name that no longer exists is still known")
	}
	s.Code(dnsmessage.RCodeSuccess)
	lookUpOne(t, r, "good.test")
}

// A single "no such name" answer changes nothing.
func TestResolverForgetsOneDenial(t *testing.T) {
	s := testdns.Start(t, goodNames)
	r := newResolver(t, 4)
	lookUpOne(t, r, "good.test")
	for n := int64(1); n <= 2; n++ {
		s.Code(dnsmessage.RCodeNameError)
		testproc.Await(t, "the name is denied", func() bool {
			lookUpOne(t, r, "good.test")
			return r.Lookups().Denied == n
		})
		s.Code(dnsmessage.RCodeSuccess)
		testproc.Await(t, "the name is found", func() bool {
			lookUpOne(t, r, "good.test")
			return r.Lookups().Found == 1+n
		})
	}
}

// The Resolver does not look a busy name up for each caller, but from time to time. The Resolver finds changed
// addresses.
func TestResolverRefreshesUnderTraffic(t *testing.T) {
	moved := netip.MustParseAddr("127.0.0.7")
	s := testdns.Start(t, goodNames)
	r := newResolver(t, 4)
	lookUpOne(t, r, "good.test")
	s.Answer(func(string) []netip.Addr { return []netip.Addr{moved} })
	began, calls := time.Now(), 0
	testproc.Await(t, "the new address is found", func() bool {
		for range 100 {
			lookUpOne(t, r, "good.test")
			calls++
		}
		return lookUpOne(t, r, "good.test") == moved
	})
	if n, most := s.Asked("good.test"), 2+int(time.Since(began)/refreshEvery); n > most {
		t.Errorf("%d calls made %d lookups, want at most %d", calls, n, most)
	}
}

// When all addresses of a name have failed, the Resolver looks the name up again, and the caller waits for that lookup.
func TestResolverLooksAgainWhenAllAddressesFail(t *testing.T) {
	moved := netip.MustParseAddr("127.0.0.7")
	s := testdns.Start(t, goodNames)
	r := newResolver(t, 4)
	e := Endpoint{Host: "good.test", Addr: netip.AddrPortFrom(netip.Addr{}, 80)}
	lookUpOne(t, r, "good.test")
	s.Answer(func(string) []netip.Addr { return []netip.Addr{moved} })
	if r.Failed(TCP, e, loopback4[0]) {
		t.Error("Failed reports another address, want none")
	}
	began := time.Now()
	got := lookUpOne(t, r, "good.test")
	if time.Since(began) >= staleWait { // on a busy host the caller may have lost patience, and the lookup goes on
		testproc.Await(t, "the lookup ends", func() bool { return snapshotOf(r, "good.test").Addrs[0] == moved })
	} else if got != moved {
		t.Errorf("got %v, want %v", got, moved)
	}
	if n := s.Asked("good.test"); n != 2 {
		t.Errorf("%d lookups, want 2", n)
	}
}

// A lookup may end just before a caller begins to wait for it. That caller gets the result, and no other lookup begins.
func TestResolverUsesALookupThatHasJustEnded(t *testing.T) {
	testdns.Start(t, goodNames)
	r := newResolver(t, 4)
	e := Endpoint{Host: "good.test", Addr: netip.AddrPortFrom(netip.Addr{}, 80)}
	lookUpOne(t, r, "good.test")
	r.Failed(TCP, e, loopback4[0])
	began := time.Now()
	if addrs, ok := r.Known("good.test"); ok {
		t.Fatalf("got %v, want to be told to wait", addrs)
	}
	testproc.Await(t, "the lookup ends", func() bool { return r.Lookups().Found == 2 })
	addrs, c, _ := r.join("good.test")
	if !slices.Equal(addrs, loopback4) && time.Since(began) < refreshEvery {
		t.Errorf("got %v and the call %v, want %v and no call", addrs, c, loopback4)
	}
}

// The Resolver learns a name even if the name server is slower than the caller's timeout.
func TestResolverLearnsFromASlowNameServer(t *testing.T) {
	release := make(chan struct{})
	testdns.Start(t, func(string) []netip.Addr { <-release; return loopback4 })
	r := newResolver(t, 4)
	ctx, cancel := context.WithCancel(t.Context())
	wait := lookUp(ctx, r, "good.test")
	testproc.Await(t, "the lookup has begun", func() bool { return len(r.slots) == 1 })
	cancel()
	if err := wait()[0]; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a timeout of the caller", err)
	}
	close(release)
	testproc.Await(t, "the name is known", func() bool { _, known := r.Known("good.test"); return known })
}

// A new process gets the known names of the old process, and uses them if its name servers are silent.
func TestNamesAreHandedOn(t *testing.T) {
	s := testdns.Start(t, goodNames)
	old := newResolver(t, 4)
	lookUpOne(t, old, "good.test")
	s.Answer(func(string) []netip.Addr { return nil })
	r := newResolver(t, 4)
	r.SetNames(old.Names())
	if got := lookUpOne(t, r, "good.test"); got != loopback4[0] {
		t.Errorf("got %v, want %v", got, loopback4[0])
	}
	if n := s.Asked("good.test"); n != 2 {
		t.Errorf("%d lookups, want one by each", n)
	}
}

// An address that keeps failing is tried less and less often. Users of a failing address are told to move if another
// address is better.
func TestFailedAddressesComeLast(t *testing.T) {
	first, second := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	testdns.Start(t, func(string) []netip.Addr { return []netip.Addr{first, second} })
	r := newResolver(t, 4)
	e := Endpoint{Host: "both.test", Addr: netip.AddrPortFrom(netip.Addr{}, 53)}
	addrs, err := r.Lookup(t.Context(), e.Host)
	if err != nil {
		t.Fatal(err)
	}
	use := r.Use(UDP, netip.AddrPortFrom(first, 53))
	if !r.Failed(UDP, e, first) || use.Moves() != 1 {
		t.Error("Failed reports no other address, or users of the first address were not told to move")
	}
	if got := r.Order(UDP, e, addrs); !slices.Equal(got, []netip.Addr{second, first}) {
		t.Errorf("got %v, want the first last", got)
	}
	if r.Failed(UDP, e, second) {
		t.Error("Failed reports another address, but both have failed")
	}
	if use.Moves() != 1 {
		t.Error("users were told to move though no address is better")
	}
	r.Reached(UDP, netip.AddrPortFrom(first, 53))
	if got := r.Order(UDP, e, addrs); !slices.Equal(got, []netip.Addr{first, second}) {
		t.Errorf("got %v, want the first, which has answered", got)
	}
	if n := r.addrs.failing.Load(); n != 1 {
		t.Errorf("%d addresses fail, want 1", n)
	}
}
