//go:build amd64 || arm64

package kernel

import (
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// inGroup runs the rest of the test in a network namespace and a control group of its own, see testnet.Inside. It
// returns the group.
func inGroup(t *testing.T) (group string, inside bool) {
	t.Helper()
	if !testnet.Inside(t) {
		return "", false
	}
	root, err := findCgroup("")
	if err != nil {
		testproc.Cannot(t, "the root of the cgroup2 hierarchy is not there", err)
	}
	group = ownGroup(t) + "/lictor-test-" + strconv.Itoa(os.Getpid())
	dir := filepath.Join(root, group)
	if err := os.Mkdir(dir, 0o755); err != nil {
		testproc.Cannot(t, "a control group cannot be made", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
		testproc.Cannot(t, "this process cannot move to a control group", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(filepath.Join(dir, "..", "cgroup.procs"), []byte("0"), 0); err != nil {
			t.Error(err)
		}
		testproc.Await(t, "the control group to be empty", func() bool { return os.Remove(dir) == nil })
	})
	return group, true
}

func ownGroup(t *testing.T) string {
	t.Helper()
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		if group, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(strings.TrimSpace(group), "/")
		}
	}
	t.Fatal("this process is in no cgroup2 hierarchy")
	return ""
}

// open opens a path in the group. Connections of this process count as those of clients.
func open(t *testing.T, o Options) *Path {
	t.Helper()
	p, err := Open(o)
	if err != nil {
		testproc.Cannot(t, "the kernel path cannot be opened", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.objects.OwnTgid.Set(uint32(0)); err != nil {
		t.Fatal(err)
	}
	return p
}

// A backend is an endpoint that counts its connections, and sends back what it receives.
type backend struct {
	net.Listener
	addr netip.AddrPort
	hits atomic.Int64 // connections so far
	open atomic.Int64 // connections now
	wait sync.WaitGroup
}

func newBackend(t *testing.T, at string) *backend {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{Listener: l, addr: l.Addr().(*net.TCPAddr).AddrPort()}
	b.wait.Go(b.serve)
	t.Cleanup(b.stop)
	return b
}

func (b *backend) stop() {
	_ = b.Close()
	b.wait.Wait()
}

func (b *backend) serve() {
	for {
		c, err := b.Accept()
		if err != nil {
			return
		}
		b.hits.Add(1)
		b.open.Add(1)
		b.wait.Go(func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
			b.open.Add(-1)
		})
	}
}

func set(t *testing.T, p *Path, s Service) {
	t.Helper()
	if err := p.Set(s); err != nil {
		t.Fatal(err)
	}
}

// exchange connects, sends a few bytes and receives them again.
func exchange(network, to string) error {
	c, err := net.DialTimeout(network, to, testproc.Patience)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	_ = c.(*net.TCPConn).CloseWrite()
	_, err = io.ReadAll(c)
	return err
}

func TestWeightsAreExactUnderConcurrentClients(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	front := netip.MustParseAddrPort("127.0.0.1:7000")
	s := Service{Name: "web", Listen: []netip.AddrPort{front}}
	var backends []*backend
	weights := []int{1, 2, 5}
	for i, w := range weights {
		backends = append(backends, newBackend(t, "127.0.0.1:0"))
		s.Endpoints = append(s.Endpoints, Endpoint{Addr: backends[i].addr, Weight: w, Key: uint64(10 + i)})
	}
	set(t, p, s)
	const clients, each = 8, 100
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				if err := exchange("tcp", front.String()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i, b := range backends {
		if got, want := b.hits.Load(), int64(clients*each*weights[i]/8); got != want {
			t.Errorf("endpoint of weight %d got %d connections, want %d", weights[i], got, want)
		}
	}
	testproc.Await(t, "all connections to end", func() bool { c, _ := p.Counters("web"); return c.Open == 0 })
	c, endpoints := p.Counters("web")
	want := Counters{Picks: 800, Connections: 800, Sent: 5 * 800, Received: 5 * 800}
	if c != want {
		t.Errorf("counters are %+v, want %+v", c, want)
	}
	if len(endpoints) != 3 {
		t.Errorf("%d endpoints have counters, want 3", len(endpoints))
	}
}

func TestPeerIsTheListener(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	v4, v6 := newBackend(t, "127.0.0.1:0"), newBackend(t, "[::1]:0")
	for _, tt := range []struct {
		name, network, listen, to, peer string
		backend                         *backend
	}{
		{"IPv4", "tcp4", "127.0.0.1:7000", "127.0.0.1:7000", "127.0.0.1:7000", v4},
		{"IPv6", "tcp6", "[::1]:7000", "[::1]:7000", "[::1]:7000", v6},
		{"IPv6 to IPv4", "tcp", "[::1]:7000", "[::1]:7000", "[::1]:7000", v4},
		{"wildcard IPv4", "tcp4", "0.0.0.0:7000", "127.9.9.9:7000", "127.9.9.9:7000", v4},
		{"unspecified", "tcp4", "127.0.0.1:7000", "0.0.0.0:7000", "127.0.0.1:7000", v4},
		{"wildcard of both families, IPv4", "tcp4", "[::]:7000", "127.0.0.1:7000", "127.0.0.1:7000", v4},
		{"wildcard of both families, IPv6", "tcp6", "[::]:7000", "[::1]:7000", "[::1]:7000", v6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := tt.backend.hits.Load()
			set(t, p, Service{Name: "web", Listen: []netip.AddrPort{netip.MustParseAddrPort(tt.listen)},
				Endpoints: []Endpoint{{Addr: tt.backend.addr}}})
			c, err := net.DialTimeout(tt.network, tt.to, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if got := c.RemoteAddr().String(); got != tt.peer {
				t.Errorf("the peer is %s, want %s", got, tt.peer)
			}
			testproc.Await(t, "the endpoint to accept", func() bool { return tt.backend.hits.Load() == before+1 })
		})
	}
}

// socket opens a TCP socket.
func socket(t *testing.T, family int) int {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}
