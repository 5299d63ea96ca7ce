//go:build amd64 || arm64

package kernel

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestCutDestroysOnlySocketsOfTheService(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	if p.cutter == nil {
		testproc.Cannot(t, "sockets cannot be destroyed", p.noCutter)
	}
	checkCut(t, p)
}

func checkCut(t *testing.T, p *Path) {
	t.Helper()
	leaving, staying := newBackend(t, "127.0.0.1:0"), newBackend(t, "127.0.0.1:0")
	other := netip.MustParseAddrPort("127.0.0.1:7100")
	web := Service{Name: "web", Listen: []netip.AddrPort{front},
		Endpoints: []Endpoint{{Addr: leaving.addr, Key: 1}, {Addr: staying.addr, Key: 2}}}
	set(t, p, web)
	set(t, p, Service{Name: "other", Listen: []netip.AddrPort{other},
		Endpoints: []Endpoint{{Addr: leaving.addr, Key: 1}}})
	dial := func(to netip.AddrPort) net.Conn { c, _ := dial(t, "tcp", to); return c }
	var through, direct []net.Conn
	for range 200 {
		through = append(through, dial(front))
	}
	for range 50 {
		direct = append(direct, dial(leaving.addr), dial(other))
	}
	web.Endpoints = web.Endpoints[1:]
	set(t, p, web)
	n, err := p.Cut("web", []uint64{1})
	if n != 100 || err != nil {
		t.Errorf("%d sockets were destroyed (%v), want 100", n, err)
	}
	cut := 0
	for _, c := range through {
		if err := echo(c); errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EPIPE) {
			cut++
		} else if err != nil {
			t.Error(err)
		}
	}
	if cut != 100 {
		t.Errorf("%d clients have lost their connection, want 100", cut)
	}
	for _, c := range direct {
		if err := echo(c); err != nil {
			t.Errorf("another connection: %v", err)
		}
	}
	if c, _ := p.Counters("web"); c.Open != 100 || c.Unreachable != 0 {
		t.Errorf("counters are %+v, want 100 open connections", c)
	}

	// An endpoint that returns is not cut.
	web.Endpoints = []Endpoint{{Addr: leaving.addr, Key: 1}}
	set(t, p, web)
	back := dial(front)
	if n, err := p.Cut("web", []uint64{2}); n != 100 || err != nil {
		t.Errorf("%d sockets were destroyed (%v), want 100", n, err)
	}
	if err := echo(back); err != nil {
		t.Error(err)
	}
}

// bySockDiag makes a path cut as it does where programs cannot.
func bySockDiag(t *testing.T, p *Path) {
	t.Helper()
	if err := probeDestroy(); err != nil {
		testproc.Cannot(t, "sock_diag cannot destroy sockets", err)
	}
	if p.cutter != nil {
		p.cutter.close()
	}
	p.cutter = &diagCutter{p}
}

// TestCutBySockDiag checks that the same sockets are destroyed where programs cannot do it.
func TestCutBySockDiag(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	bySockDiag(t, p)
	checkCut(t, p)
}

// TestCutOfSocketsOfBothFamilies checks TCP and UDP sockets, and that those stay which have another peer by now.
func TestCutOfSocketsOfBothFamilies(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	if _, is := p.cutter.(*iterCutter); is {
		checkCutOfBothFamilies(t, p)
	}
	bySockDiag(t, p)
	checkCutOfBothFamilies(t, p)
}

func checkCutOfBothFamilies(t *testing.T, p *Path) {
	t.Helper()
	front6, other := netip.MustParseAddrPort("[::1]:7000"), newUDPBackend(t, "127.0.0.1:0")
	tcp := Service{Name: "tcp", Listen: []netip.AddrPort{front, front6},
		Endpoints: []Endpoint{{Addr: newBackend(t, "127.0.0.1:0").addr, Key: 1}}}
	udp := Service{Name: "udp", UDP: true, Listen: tcp.Listen,
		Endpoints: []Endpoint{{Addr: newUDPBackend(t, "127.0.0.1:0"), Key: 1}}}
	set(t, p, tcp)
	set(t, p, udp)
	for network, s := range map[string]Service{"tcp": tcp, "udp": udp} {
		var cut []net.Conn
		for _, to := range s.Listen { // the second one has an IPv6 socket, and the endpoint's address is mapped
			c, _ := dial(t, network, to)
			cut = append(cut, c)
		}
		moved, _ := dial(t, network, front)
		if network == "udp" {
			reconnect(t, moved, other)
		}
		s.Endpoints = nil
		set(t, p, s)
		want := 3
		if network == "udp" {
			want = 2
		}
		if n, err := p.Cut(s.Name, []uint64{1}); n != want || err != nil {
			t.Errorf("%s: %d sockets were destroyed (%v), want %d", network, n, err, want)
		}
		for _, c := range cut {
			if err := writeAndRead(c); err == nil {
				t.Errorf("%s: a socket was not destroyed", network)
			}
		}
		if err := writeAndRead(moved); (err == nil) != (network == "udp") {
			t.Errorf("%s: error %v of the socket that may have another peer", network, err)
		}
	}
}

// reconnect connects a UDP socket again.
func reconnect(t *testing.T, c net.Conn, to netip.AddrPort) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.Connect(int(fd), sockaddr(to)) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func writeAndRead(c net.Conn) error {
	if _, err := c.Write([]byte{'x'}); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 100))
	return err
}

// echo sends a byte and waits for the same one.
func echo(c net.Conn) error {
	b := []byte{'x'}
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

func TestMissingForCutter(t *testing.T) {
	for _, tt := range []struct{ lacks, want string }{
		{"", ""},
		{"bpf_sock_destroy", "bpf_sock_destroy (Linux 6.5; CONFIG_INET_DIAG_DESTROY would do, too)"},
		{"bpf_iter_udp", "bpf_iter_udp (CONFIG_PROC_FS)"},
	} {
		if got := missingForCutter(func(function string) bool { return function != tt.lacks }); got != tt.want {
			t.Errorf("without %q: got %q, want %q", tt.lacks, got, tt.want)
		}
	}
}
