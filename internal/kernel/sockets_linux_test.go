//go:build amd64 || arm64

package kernel

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// socketsOf returns the sockets on the path.
func socketsOf(t *testing.T, p *Path) []Socket {
	t.Helper()
	all, err := p.Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// dial connects a socket, and returns it with its own address.
func dial(t *testing.T, network string, to netip.AddrPort) (net.Conn, netip.AddrPort) {
	t.Helper()
	c, err := net.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	local := netip.MustParseAddrPort(c.LocalAddr().String())
	return c, netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
}

// TestSocketsOfThePath checks that exactly the sockets on the path are listed, with the bytes that they have moved.
func TestSocketsOfThePath(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	front6 := netip.MustParseAddrPort("[::1]:7000")
	a, b := newBackend(t, "127.0.0.1:0").addr, newBackend(t, "[::1]:0").addr
	if all := socketsOf(t, p); len(all) > 0 {
		t.Errorf("without services there are %+v", all)
	}
	set(t, p, Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: a, Key: 1}}})
	set(t, p, Service{Name: "db", Listen: []netip.AddrPort{front6}, Endpoints: []Endpoint{{Addr: b, Key: 2}}})
	dial(t, "tcp", a)
	web, webs := dial(t, "tcp4", front)
	_, dbs := dial(t, "tcp6", front6)
	if _, err := io.WriteString(web, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(web, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	moved := socket(t, unix.AF_INET)
	for _, to := range []netip.AddrPort{front, a} {
		if err := unix.Connect(moved, sockaddr(to)); err != nil {
			t.Fatal(err)
		}
		if to == front {
			if err := disconnect(moved); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []Socket{
		{Service: "db", Key: 2, Client: dbs, Listener: front6, Endpoint: b, State: SocketOpen},
		{Service: "web", Key: 1, Client: webs, Listener: front, Endpoint: a, State: SocketOpen, Sent: 5, Received: 5},
	}
	wantSockets(t, p, want...)
	if err := web.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// The endpoint closes its side, too.
	if _, err := io.ReadAll(web); err != nil {
		t.Fatal(err)
	}
	wantSockets(t, p, want[0])

	// A connection that its endpoint has not accepted.
	silent := newSilent(t)
	set(t, p, Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: silent, Key: 3}}})
	fd := beginConnect(t)
	client := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), localPort(t, fd))
	wantSockets(t, p, want[0],
		Socket{Service: "web", Key: 3, Client: client, Listener: front, Endpoint: silent, State: SocketConnecting})

	if err := p.Remove("db"); err != nil {
		t.Error(err)
	}
	if all := socketsOf(t, p); len(all) != 1 {
		t.Errorf("after its service was removed, a socket is in %+v", all)
	}
}

// wantSockets checks what is listed, but for times and IDs.
func wantSockets(t *testing.T, p *Path, want ...Socket) {
	t.Helper()
	name, err := os.ReadFile("/proc/thread-self/comm")
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		want[i].PID, want[i].Program = uint32(os.Getpid()), strings.TrimSpace(string(name))
	}
	var got []Socket
	same := func() bool {
		got = socketsOf(t, p)
		if !slices.IsSortedFunc(got, func(a, b Socket) int { return int(a.ID) - int(b.ID) }) {
			t.Errorf("not sorted: %+v", got)
		}
		for i := range got {
			s := &got[i]
			if s.ID == 0 || s.Age <= 0 || s.Idle < 0 || s.Idle > s.Age {
				t.Errorf("the socket has no ID or no times: %+v", s)
			}
			s.ID, s.Age, s.Idle = 0, 0, 0
		}
		slices.SortFunc(got, func(a, b Socket) int { return strings.Compare(a.Service, b.Service) })
		return slices.Equal(got, want)
	}
	defer func() {
		if t.Failed() {
			t.Logf("got  %+v\nwant %+v", got, want)
		}
	}()
	testproc.Await(t, "the sockets to be listed", same)
}

func localPort(t *testing.T, fd int) uint16 {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(sa.(*unix.SockaddrInet4).Port)
}

// TestUDPSocketsOfThePath checks that connected sockets and sessions are listed, and that what is over is not.
func TestUDPSocketsOfThePath(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	backend, other := newUDPBackend(t, "127.0.0.1:0"), netip.MustParseAddrPort("127.0.0.1:7100")
	dns := Service{Name: "dns", UDP: true, Listen: []netip.AddrPort{front},
		Endpoints: []Endpoint{{Addr: backend, Key: 1}}}
	log := Service{Name: "log", UDP: true, Listen: []netip.AddrPort{other},
		Endpoints: []Endpoint{{Addr: backend, Key: 2}}}
	set(t, p, dns)
	set(t, p, log)
	c := udpSocket(t, "udp4")
	ask(t, c, front)
	loose := netip.AddrPortFrom(netip.IPv4Unspecified(), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	one := Socket{Service: "dns", UDP: true, Key: 1, Client: loose, Listener: front, Endpoint: backend,
		State: SocketOpen}
	wantSockets(t, p, one)
	ended, _ := dial(t, "udp4", front)
	_ = ended.Close()
	_, connected := dial(t, "udp4", other)
	two := Socket{Service: "log", UDP: true, Key: 2, Client: connected, Listener: other, Endpoint: backend,
		State: SocketOpen}
	wantSockets(t, p, one, two)
	dns.Endpoints = nil
	set(t, p, dns)
	wantSockets(t, p, two)
}

// TestSocketsOfManyPorts checks what happens with so many ports that the kernel looks at all sockets.
func TestSocketsOfManyPorts(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	backend := newBackend(t, "127.0.0.1:0").addr
	for _, n := range []uint16{1, 2, maxDiagPorts, maxDiagPorts + 1} {
		s := Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: backend}}}
		for port := range n - 1 {
			s.Endpoints = append(s.Endpoints, Endpoint{Addr: netip.AddrPortFrom(backend.Addr(), 20000+port), Key: 1})
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			set(t, p, s)
			c, _ := dial(t, "tcp4", front)
			if all := socketsOf(t, p); len(all) != 1 || all[0].Endpoint != backend {
				t.Errorf("got %+v", all)
			}
			_ = c.Close()
			if err := p.Remove("web"); err != nil {
				t.Error(err)
			}
		})
	}
}
