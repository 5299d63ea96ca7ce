//go:build amd64 || arm64

package kernel

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

var front = netip.MustParseAddrPort("127.0.0.1:7000")

// withEvents opens a path with one service, at front, that has one endpoint.
func withEvents(t *testing.T, group string, to netip.AddrPort, timeout time.Duration) (*Path, <-chan Event) {
	t.Helper()
	events := make(chan Event, 100)
	p := open(t, Options{Cgroup: group, Events: func(e Event) { events <- e }})
	set(t, p, Service{Name: "web", Listen: []netip.AddrPort{front}, ConnectTimeout: timeout,
		Endpoints: []Endpoint{{Addr: to, Key: 7}}})
	return p, events
}

func wantEvent(t *testing.T, events <-chan Event, kind EventKind) {
	t.Helper()
	if got, want := testproc.Receive(t, "an event", events), (Event{"web", 7, kind}); got != want {
		t.Errorf("event %+v, want %+v", got, want)
	}
}

func wantCounters(t *testing.T, p *Path, want Counters) {
	t.Helper()
	testproc.Await(t, "all connections to end", func() bool { c, _ := p.Counters("web"); return c.Open == want.Open })
	if got, _ := p.Counters("web"); got != want {
		t.Errorf("counters are %+v, want %+v", got, want)
	}
}

func TestRefusedAndRecovered(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	b := newBackend(t, "127.0.0.1:0")
	b.stop()
	p, events := withEvents(t, group, b.addr, 0)
	for range 2 {
		if _, err := net.Dial("tcp", front.String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("error %v, want connection refused", err)
		}
		wantEvent(t, events, Refused)
	}
	newBackend(t, b.addr.String())
	for range 2 {
		if err := exchange("tcp", front.String()); err != nil {
			t.Error(err)
		}
	}
	wantEvent(t, events, Recovered)
	wantCounters(t, p, Counters{Picks: 4, Connections: 2, Refused: 2, Sent: 10, Received: 10})
	if len(events) > 0 {
		t.Errorf("unexpected event %v", <-events)
	}
}

// newSilent returns the address of an endpoint that does not answer a SYN.
func newSilent(t *testing.T) netip.AddrPort {
	t.Helper()
	l := socket(t, unix.AF_INET)
	any := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := errors.Join(unix.Bind(l, any), unix.Listen(l, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	// The kernel ignores a SYN when the queue is full.
	if err := unix.Connect(socket(t, unix.AF_INET), sa); err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
}

// beginConnect begins a connection to front, and returns its socket.
func beginConnect(t *testing.T) int {
	t.Helper()
	fd := socket(t, unix.AF_INET)
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, sockaddr(front)); !errors.Is(err, unix.EINPROGRESS) {
		t.Fatalf("connect: %v, want EINPROGRESS", err)
	}
	return fd
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func TestAbandonedIsNoFailure(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p, events := withEvents(t, group, newSilent(t), time.Hour)
	for _, abandon := range []func(fd int) error{
		unix.Close,
		func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) },
		func(fd int) error { return disconnect(fd) },
		func(fd int) error {
			reset := &unix.Linger{Onoff: 1}
			return errors.Join(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, reset), unix.Close(fd))
		},
		func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1) },
	} {
		fd := beginConnect(t)
		if c, _ := p.Counters("web"); c.Open != 1 {
			t.Errorf("%d connections are open, want 1", c.Open)
		}
		if err := abandon(fd); err != nil {
			t.Fatal(err)
		}
		testproc.Await(t, "the connection to end", func() bool { c, _ := p.Counters("web"); return c.Open == 0 })
	}
	wantCounters(t, p, Counters{Picks: 5, Abandoned: 5})
	if len(events) > 0 {
		t.Errorf("unexpected event %v", <-events)
	}
}

// disconnect is connect(2) with AF_UNSPEC.
func disconnect(fd int) error {
	var sa [16]byte
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa)))
	if errno != 0 {
		return errno
	}
	return nil
}

func TestTimedOut(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p, events := withEvents(t, group, newSilent(t), 100*time.Millisecond)
	fd := beginConnect(t)
	wantEvent(t, events, TimedOut)
	wantCounters(t, p, Counters{Picks: 1, Open: 1, TimedOut: 1})
	_ = unix.Close(fd)
	wantCounters(t, p, Counters{Picks: 1, TimedOut: 1})
}

func TestUnreachable(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	link := testnet.Link{Here: netip.MustParsePrefix("10.77.0.1/24"), There: netip.MustParsePrefix("10.77.0.2/24")}
	testnet.AddHost(t, "veth0", link)
	p, events := withEvents(t, group, netip.MustParseAddrPort("10.77.0.3:80"), time.Hour)
	_, err := net.DialTimeout("tcp", front.String(), testproc.Patience)
	if !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("error %v, want no route to host", err)
	}
	wantEvent(t, events, Unreachable)
	wantCounters(t, p, Counters{Picks: 1, Unreachable: 1})
}
