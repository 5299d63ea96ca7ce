package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Services and endpoints come and go under load, over TCP and UDP. In the end Lictor has as many maps, programs, links
// and sockets open as in the beginning, its maps take as much memory, and it does not take more itself.
func TestKernelPathLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	web, dns := freePort(t), freePort(t)
	small := onPath(group, serviceAt("web", web, endpoints(startEcho(t, "a"), startEcho(t, "b"))))
	l := runLictor(t, small)
	programs := group.Programs(t)
	large := func() string {
		a, b := startEcho(t, "a"), startEcho(t, "b")
		text := onPath(group, serviceAt("web", web, endpoints(a, b)),
			serviceAt("dns", dns, udp, static(startWhence(t, "a"), startWhence(t, "b"))))
		for i := range 20 {
			text += serviceAt(fmt.Sprint("web", i), freePort(t), endpoints(a, b))
		}
		return text
	}
	must(t, group.Enter())
	clients := newCrowd(t)
	for range 4 {
		clients.add("connection", func(int) error { _, err := ask(t.Context(), web); return err })
	}
	var before left
	for i := range 12 {
		clients.getOn(10)
		must(t, group.Leave())
		text := large()
		must(t, group.Enter())
		l.mustReload(t, text)
		if n := group.Programs(t); n <= programs {
			t.Errorf("%d programs while there is a UDP service, and %d before", n, programs)
		}
		s, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dns))
		must(t, err)
		_, err = exactly(&udpClient{s}, "whence")
		must(t, err)
		must(t, s.Close())
		clients.getOn(10)
		l.mustReload(t, small)
		if i == 1 { // what is opened once is open
			before = l.left(t)
		}
	}
	clients.end()
	t.Logf("%s; before: %v; after: %v", clients, before, l.left(t))
	eventually(t, "as much as before", func() error {
		after, n := l.left(t), group.Programs(t)
		if !maps.Equal(after.descriptors, before.descriptors) || after.maps != before.maps || n != programs ||
			after.resident > before.resident*5/4+8<<20 {
			return fmt.Errorf("%v, before %v; %d programs, before %d", after, before, n, programs)
		}
		return nil
	})
	if before.maps == 0 || before.descriptors["anon_inode:bpf_link"] == 0 {
		t.Errorf("no maps or links in %v", before)
	}
	wantNothingAttached(t, group, l)
}

// A left is what a Lictor holds.
type left struct {
	descriptors map[string]int // by kind
	maps        int            // bytes of all eBPF maps
	resident    int            // bytes of the process
}

// left returns what l holds now.
func (l *lictor) left(t testing.TB) left {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", l.Pid())
	links, err := filepath.Glob(proc + "fd/*")
	must(t, err)
	held := left{descriptors: map[string]int{}}
	for _, link := range links {
		to, err := os.Readlink(link)
		if err != nil { // a connection of the admin API may have ended
			continue
		}
		kind, _, _ := strings.Cut(to, ":[") // socket:[4711]
		held.descriptors[kind]++
		if kind == "anon_inode:bpf-map" {
			held.maps += field(t, proc+"fdinfo/"+filepath.Base(link), "memlock:")
		}
	}
	held.resident = field(t, proc+"status", "VmRSS:") << 10
	return held
}

// field returns the number after a name in a file of proc(5).
func field(t testing.TB, file, name string) (n int) {
	t.Helper()
	_, after, found := strings.Cut(readFile(t, file), name)
	if _, err := fmt.Sscan(after, &n); !found || err != nil {
		t.Fatalf("no number after %q in %s: %v", name, file, err)
	}
	return n
}
