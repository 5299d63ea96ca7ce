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
	leaving, staying := newBackend(t, "127.0.0.1:0"), newBackend(t, "127.0.0.1:0")
	other := netip.MustParseAddrPort("127.0.0.1:7100")
	web := Service{Name: "web", Listen: []netip.AddrPort{front},
		Endpoints: []Endpoint{{Addr: leaving.addr, Key: 1}, {Addr: staying.addr, Key: 2}}}
	set(t, p, web)
	set(t, p, Service{Name: "other", Listen: []netip.AddrPort{other},
		Endpoints: []Endpoint{{Addr: leaving.addr, Key: 1}}})
	dial := func(to netip.AddrPort) net.Conn {
		c, err := net.Dial("tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
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
	if err != nil {
		testproc.Cannot(t, "sockets cannot be destroyed", err)
	}
	if n != 100 {
		t.Errorf("%d sockets were destroyed, want 100", n)
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
		{"bpf_sock_destroy", "bpf_sock_destroy (Linux 6.5)"},
		{"bpf_iter_udp", "bpf_iter_udp (CONFIG_PROC_FS)"},
	} {
		if got := missingForCutter(func(function string) bool { return function != tt.lacks }); got != tt.want {
			t.Errorf("without %q: got %q, want %q", tt.lacks, got, tt.want)
		}
	}
}
