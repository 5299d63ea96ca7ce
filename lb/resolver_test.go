package lb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testdns"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// loopback4 holds the addresses of good names.
var loopback4 = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}

// goodNames answers names that begin with "good", and no others.
func goodNames(name string) []netip.Addr {
	if strings.HasPrefix(name, "good") {
		return loopback4
	}
	return nil
}

// lookUp looks up each name in its own goroutine until ctx ends. The returned function waits for all lookups and
// returns their errors.
func lookUp(ctx context.Context, r *Resolver, names ...string) (wait func() []error) {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { _, errs[i] = r.Lookup(ctx, name) })
	}
	return func() []error {
		wg.Wait()
		return errs
	}
}

// numbered returns n names with the given prefix.
func numbered(prefix string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s%d.test", prefix, i))
	}
	return names
}

// With any number of names without an answer, few lookups run at once, and they use few sockets.
func TestResolverBoundsLookups(t *testing.T) {
	s := testdns.Start(t, goodNames)
	r := newResolver(t, 4)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := lookUp(ctx, r, numbered("bad", 100)...)
	testproc.Await(t, "three lookups are under way", func() bool { open, _ := s.Sockets(); return open == 2*3 })
	testproc.Await(t, "all others wait", func() bool { return callsOf(r) == 100 })
	cancel()
	begun, waited := 0, 0
	for _, err := range wait() {
		var dns *net.DNSError
		switch {
		case errors.Is(err, ErrLookups):
			waited++
		case errors.As(err, &dns) && errors.Is(err, context.Canceled):
			begun++
		default:
			t.Errorf("got %v", err)
		}
	}
	// Lookups without waiters leave their slots to lookups that still have waiters.
	if begun < 3 || begun+waited != 100 || waited < 50 {
		t.Errorf("%d lookups began and %d waited, want 3 and 97, or a few more and less", begun, waited)
	}
	r.Close() // running lookups continue for a while, in case the name server is slow
	if open, most := s.Sockets(); open != 0 || most > 2*3 {
		t.Errorf("%d sockets are open and %d have been, want none and at most 6", open, most)
	}
	if len(r.names) != 0 || len(r.slots) != 0 || len(r.unknownSlots) != 0 {
		t.Errorf("%d names, %d slots and %d are left", len(r.names), len(r.slots), len(r.unknownSlots))
	}
}

// callsOf returns how many lookups of r run or wait.
func callsOf(r *Resolver) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range r.names {
		if name.call != nil {
			n++
		}
	}
	return n
}

// newResolver returns a Resolver that is closed when the test ends.
func newResolver(t *testing.T, lookups int) *Resolver {
	r := NewResolver(lookups)
	t.Cleanup(r.Close)
	return r
}

// Concurrent callers for one name share a lookup, which continues as long as one caller waits.
func TestResolverSharesLookups(t *testing.T) {
	release := make(chan struct{})
	s := testdns.Start(t, func(name string) []netip.Addr {
		<-release
		return loopback4
	})
	r := newResolver(t, 4)
	names := make([]string, 50)
	for i := range names {
		names[i] = "good.test"
	}
	ctx, cancel := context.WithCancel(t.Context())
	leave := lookUp(ctx, r, names...)
	stay := lookUp(t.Context(), r, names...)
	waiting := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		if n := r.names["good.test"]; n != nil && n.call != nil {
			return n.call.waiters
		}
		return 0
	}
	testproc.Await(t, "all wait", func() bool { return waiting() == 2*len(names) })
	if len(r.slots) != 1 || s.Asked("good.test") > 1 {
		t.Errorf("%d lookups, which asked %d times, want one", len(r.slots), s.Asked("good.test"))
	}
	cancel()
	for _, err := range leave() {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if n := waiting(); n != len(names) {
		t.Errorf("%d wait, want %d", n, len(names))
	}
	close(release)
	for _, err := range stay() {
		if err != nil {
			t.Errorf("got %v", err)
		}
	}
	if open, most := s.Sockets(); open != 0 || most > 2 {
		t.Errorf("%d sockets are open and %d have been, want none and at most 2", open, most)
	}
}

// Endpoints with host names are checked too, and names without an answer take few lookups.
func TestProberLooksNamesUp(t *testing.T) {
	s := testdns.Start(t, goodNames)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var checks atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			checks.Add(1)
			c.Close()
		}
	}()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	var set []Endpoint
	for _, name := range append(numbered("bad", 20), "good.test") {
		set = append(set, Endpoint{ID: name, Host: name, Addr: netip.AddrPortFrom(netip.Addr{}, port)})
	}
	b := balanced(Options{MaxFails: 1}, set...)
	p := NewProber(b)
	defer p.Close()
	p.Apply(map[string]Check{"web": {Interval: 5 * time.Millisecond, Timeout: 50 * time.Millisecond}})
	testproc.Await(t, "the good name is checked", func() bool { return checks.Load() > 2 })
	testproc.Await(t, "a bad name is ejected", func() bool {
		for _, e := range b.Snapshot()[0].Endpoints {
			if e.Host != "good.test" && e.Ejections > 0 {
				return true
			}
		}
		return false
	})
	if _, most := s.Sockets(); most > 2*maxProbeLookups {
		t.Errorf("%d sockets at once, want at most %d", most, 2*maxProbeLookups)
	}
}

// Dial tries all addresses of a name, and an address that has failed comes last for a while.
func TestDialTriesAllAddresses(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	dead, alive := netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")
	testdns.Start(t, func(string) []netip.Addr { return []netip.Addr{dead, alive} })
	r := newResolver(t, 4)
	e := Endpoint{Host: "both.test", Addr: netip.AddrPortFrom(netip.Addr{}, port)}
	c, err := r.Dial(t.Context(), &net.Dialer{}, TCP, e, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	addrs, _ := r.Lookup(t.Context(), e.Host)
	if got := r.Order(TCP, e, addrs); !slices.Equal(got, []netip.Addr{alive, dead}) {
		t.Errorf("got %v, want %v last", got, dead)
	}
	for _, other := range []Endpoint{{Addr: netip.AddrPortFrom(netip.Addr{}, 9)}} {
		if got := r.Order(TCP, other, addrs); !slices.Equal(got, addrs) {
			t.Errorf("at another port got %v, want %v", got, addrs)
		}
	}
	if got := r.Order(UDP, e, addrs); !slices.Equal(got, addrs) {
		t.Errorf("over UDP got %v, want %v", got, addrs)
	}
	l.Close()
	if _, err := r.Dial(t.Context(), &net.Dialer{}, TCP, e, time.Minute, nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want refused", err)
	}
}
