//go:build amd64 || arm64

package kernel

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// peer returns the peer of a socket.
func peer(t *testing.T, fd int) netip.AddrPort {
	t.Helper()
	sa, err := unix.Getpeername(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	t.Fatalf("the peer is %v", sa)
	return netip.AddrPort{}
}

func option(level, name, value int) func(int) error {
	return func(fd int) error { return unix.SetsockoptInt(fd, level, name, value) }
}

func bind(to string) func(int) error {
	return func(fd int) error { return unix.Bind(fd, sockaddr(netip.MustParseAddrPort(to))) }
}

// newRemote adds a host at 10.77.0.2, and returns the address of a backend there. This host is 10.77.0.1.
func newRemote(t *testing.T) (addr netip.AddrPort) {
	host := testnet.AddHost(t, "veth0",
		testnet.Link{Here: netip.MustParsePrefix("10.77.0.1/24"), There: netip.MustParsePrefix("10.77.0.2/24")})
	host.Do(func() { addr = newBackend(t, "10.77.0.2:0").addr })
	return addr
}

func TestSocketsOfAllKinds(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	v4, v6, remote := newBackend(t, "127.0.0.1:0").addr, newBackend(t, "[::1]:0").addr, newRemote(t)
	listen := []netip.AddrPort{front, netip.MustParseAddrPort("[::1]:7000")}
	p := open(t, Options{Cgroup: group})

	nothing := func(int) error { return nil }
	fromLoopback := bind("127.0.0.1:0")
	toLoopback := option(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, 1)
	onlyIPv6 := option(unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
	fastOpen := option(unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
	for _, tt := range []struct {
		name    string
		family  int
		prepare func(fd int) error
		to      string
		backend netip.AddrPort
		left    bool // the connection is left alone, and so refused
	}{
		{"v4-mapped to IPv4", unix.AF_INET6, nothing, "[::ffff:127.0.0.1]:7000", v4, false},
		{"v4-mapped to IPv6", unix.AF_INET6, nothing, "[::ffff:127.0.0.1]:7000", v6, false},
		{"IPv6 to IPv4", unix.AF_INET6, nothing, "[::1]:7000", v4, false},
		{"IPv6 only to IPv6", unix.AF_INET6, onlyIPv6, "[::1]:7000", v6, false},
		{"IPv6 only to IPv4", unix.AF_INET6, onlyIPv6, "[::1]:7000", v4, true},
		{"IPv4 to IPv6", unix.AF_INET, nothing, "127.0.0.1:7000", v6, true},
		{"to another host", unix.AF_INET, nothing, "127.0.0.1:7000", remote, false},
		{"from a loopback address", unix.AF_INET, fromLoopback, "127.0.0.1:7000", v4, false},
		{"from a loopback address to another host", unix.AF_INET, fromLoopback, "127.0.0.1:7000", remote, true},
		{"from ::1 to another host", unix.AF_INET6, bind("[::1]:0"), "[::1]:7000", remote, true},
		{"from ::1 to IPv4", unix.AF_INET6, bind("[::1]:0"), "[::1]:7000", v4, true},
		{"from an address of this host", unix.AF_INET, bind("10.77.0.1:0"), "127.0.0.1:7000", remote, false},
		{"from an address of this host to loopback", unix.AF_INET, bind("10.77.0.1:0"), "127.0.0.1:7000", v4, false},
		{"bound to a port", unix.AF_INET, bind("0.0.0.0:7001"), "127.0.0.1:7000", v4, false},
		{"bound to an interface", unix.AF_INET, toLoopback, "127.0.0.1:7000", v4, true},
		{"fast open", unix.AF_INET, fastOpen, "127.0.0.1:7000", v4, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set(t, p, Service{Name: "web", Listen: listen, Endpoints: []Endpoint{{Addr: tt.backend, Key: 1}}})
			defer func() { _ = p.Remove("web") }()
			fd := socket(t, tt.family)
			if err := tt.prepare(fd); err != nil {
				t.Fatal(err)
			}
			to := netip.MustParseAddrPort(tt.to)
			err := unix.Connect(fd, sockaddr(to))
			if tt.left {
				if !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("error %v, want connection refused, because the path leaves the socket alone", err)
				}
				return
			}
			if err == nil {
				_, err = unix.Write(fd, []byte("hello"))
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Read(fd, make([]byte, 5)); err != nil {
				t.Error(err)
			}
			if got := peer(t, fd); got != to {
				t.Errorf("the peer is %v, want %v", got, to)
			}
			wantCounters(t, p, Counters{Picks: 1, Open: 1, Connections: 1})
		})
	}
}

// The programs see the TCP socket below an MPTCP socket. So only getpeername(2) shows the endpoint.
func TestMultipathSocket(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	b := newBackend(t, "127.0.0.1:0").addr
	set(t, p, Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: b}}})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		testproc.Cannot(t, "the kernel has no MPTCP", err)
	}
	if err := unix.Connect(fd, sockaddr(front)); err != nil {
		t.Error(err)
	}
	if got := peer(t, fd); got != b {
		t.Errorf("the peer is %v, want %v", got, b)
	}
	wantCounters(t, p, Counters{Picks: 1, Open: 1, Connections: 1})
	_ = unix.Close(fd)
	wantCounters(t, p, Counters{Picks: 1, Connections: 1})
}

func TestSocketThatConnectsAgain(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	b, other := newBackend(t, "127.0.0.1:0").addr, newBackend(t, "127.0.0.1:0").addr
	set(t, p, Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: b}}})
	fd := socket(t, unix.AF_INET)
	for _, to := range []netip.AddrPort{front, other, b, front, b} {
		if err := unix.Connect(fd, sockaddr(to)); err != nil {
			t.Fatal(err)
		}
		if got := peer(t, fd); got != to {
			t.Errorf("the peer is %v, want %v", got, to)
		}
		if err := disconnect(fd); err != nil {
			t.Fatal(err)
		}
	}
	wantCounters(t, p, Counters{Picks: 2, Connections: 2})
}

func TestOtherNetworkNamespaceIsLeftAlone(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	host := testnet.AddHost(t, "veth0")
	p := open(t, Options{Cgroup: group})
	set(t, p, Service{Name: "web", Listen: []netip.AddrPort{front},
		Endpoints: []Endpoint{{Addr: newBackend(t, "127.0.0.1:0").addr}}})
	host.Do(func() {
		own := newBackend(t, front.String())
		fd := socket(t, unix.AF_INET)
		if err := unix.Connect(fd, sockaddr(front)); err != nil {
			t.Error(err)
		}
		testproc.Await(t, "the container's own listener to accept", func() bool { return own.hits.Load() == 1 })
	})
	wantCounters(t, p, Counters{})
}

func TestLocalAddressesAreFollowed(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	testnet.AddInterfaces(t, "veth0", "veth1")
	testnet.BringUp(t, "veth0")
	p := open(t, Options{Cgroup: group})
	set(t, p, Service{Name: "web", Listen: []netip.AddrPort{netip.MustParseAddrPort("[::]:7000")},
		Endpoints: []Endpoint{{Addr: newBackend(t, "127.0.0.1:0").addr}}})
	connect := func(to string) error {
		fd := socket(t, unix.AF_INET)
		return unix.Connect(fd, sockaddr(netip.MustParseAddrPort(to)))
	}
	for _, a := range []string{"10.77.0.1", "10.78.0.1"} {
		prefix := netip.MustParsePrefix(a + "/24")
		testnet.AddAddress(t, "veth0", prefix)
		testproc.Await(t, "the new address to be known", func() bool { return connect(a+":7000") == nil })
		testnet.RemoveAddress(t, "veth0", prefix)
		testproc.Await(t, "the old address to be forgotten", func() bool {
			var v uint32
			return p.objects.LocalAddresses.Lookup(addressOf(prefix.Addr()), &v) != nil
		})
	}
}

func TestTwoPaths(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	first, second := open(t, Options{Cgroup: group}), open(t, Options{Cgroup: group})
	b := newBackend(t, "127.0.0.1:0").addr
	others := netip.MustParseAddrPort("127.0.0.1:7100")
	set(t, first, Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: b}}})
	set(t, second, Service{Name: "web", Listen: []netip.AddrPort{others}, Endpoints: []Endpoint{{Addr: b}}})
	for _, to := range []netip.AddrPort{front, others, front} {
		if err := exchange("tcp", to.String()); err != nil {
			t.Error(err)
		}
	}
	wantCounters(t, first, Counters{Picks: 2, Connections: 2, Sent: 10, Received: 10})
	wantCounters(t, second, Counters{Picks: 1, Connections: 1, Sent: 5, Received: 5})

	// Of two that have a listener at one address, the second goes on when the first ends.
	set(t, second, Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: b}}})
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := exchange("tcp", front.String()); err != nil {
		t.Error(err)
	}
}

func TestYieldHandsOverNewClientsOnly(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	b := newBackend(t, "127.0.0.1:0").addr
	s := Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: b, Key: 1}}}
	paths := []*Path{open(t, Options{Cgroup: group})}
	set(t, paths[0], s)
	var clients sync.WaitGroup
	var stop atomic.Bool
	var connects atomic.Int64
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				if err := exchange("tcp", front.String()); err != nil {
					t.Errorf("during the hand-over: %v", err)
				}
				connects.Add(1)
			}
		})
	}
	long, err := net.Dial("tcp", front.String())
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		last := paths[len(paths)-1]
		next := open(t, Options{Cgroup: group})
		set(t, next, s)
		paths = append(paths, next)
		if err := last.Yield(); err != nil {
			t.Error(err)
		}
		before := connects.Load()
		testproc.Await(t, "clients of the next path", func() bool { return connects.Load() > before+50 })
	}
	stop.Store(true)
	clients.Wait()
	if got := long.RemoteAddr().String(); got != front.String() {
		t.Errorf("the peer of the long connection is %v, want %v", got, front)
	}
	if err := echo(long); err != nil {
		t.Error(err)
	}
	_ = long.Close()
	var sum Counters
	for _, p := range paths {
		testproc.Await(t, "all connections to end", func() bool { c, _ := p.Counters("web"); return c.Open == 0 })
		c, _ := p.Counters("web")
		if c.Connections == 0 {
			t.Error("a path got no connection")
		}
		sum.Add(c)
	}
	n := uint64(connects.Load())
	if want := (Counters{Picks: n + 1, Connections: n + 1, Sent: 5*n + 1, Received: 5*n + 1}); sum != want {
		t.Errorf("all paths together count %+v, want %+v", sum, want)
	}
}

// TestListenersOfOnePort checks which service clients get if a port has a listener at one address, and another one at
// all addresses, and that they get none where nothing listens.
func TestListenersOfOnePort(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	one, all := newBackend(t, "127.0.0.1:0"), newBackend(t, "127.0.0.1:0")
	exact := Service{Name: "one", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: one.addr}}}
	wildcard := Service{Name: "all", Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:7000")},
		Endpoints: []Endpoint{{Addr: all.addr}}}
	wants := func(at string, want *backend) {
		t.Helper()
		hits := map[*backend]int64{one: one.hits.Load(), all: all.hits.Load()}
		err := exchange("tcp", at)
		if want == nil && !errors.Is(err, unix.ECONNREFUSED) || want != nil && err != nil {
			t.Errorf("%s: error %v", at, err)
		}
		for b, before := range hits {
			if got := b.hits.Load() - before; got != 0 && b != want || got != 1 && b == want {
				t.Errorf("%s: %v got %d connections", at, b.addr, got)
			}
		}
	}
	set(t, p, exact)
	wants("127.0.0.1:7000", one)
	wants("127.0.0.2:7000", nil)
	set(t, p, wildcard)
	wants("127.0.0.1:7000", one)
	wants("127.0.0.2:7000", all)
	wants("[::1]:7000", nil)
	if err := p.Remove("one"); err != nil {
		t.Fatal(err)
	}
	wants("127.0.0.1:7000", all)
	set(t, p, exact)
	if err := p.Remove("all"); err != nil {
		t.Fatal(err)
	}
	wants("127.0.0.1:7000", one)
	wants("127.0.0.2:7000", nil)
}
