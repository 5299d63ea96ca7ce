//go:build amd64 || arm64

package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// manyServices puts 1,000 services on the path.
func manyServices(t testing.TB, p *Path) {
	t.Helper()
	for i := range 1000 {
		if err := p.Set(Service{Name: fmt.Sprint("other", i),
			Listen:    []netip.AddrPort{netip.AddrPortFrom(front.Addr(), uint16(8000+i))},
			Endpoints: []Endpoint{{Addr: netip.MustParseAddrPort("127.0.0.1:1")}}}); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkConnectionElsewhere measures how long the programs run for a connection that is not theirs, from connect(2)
// until both ends have closed. The kernel's own measuring is a large part of it.
func BenchmarkConnectionElsewhere(b *testing.B) {
	p, err := Open(Options{})
	if err != nil {
		b.Skip(err)
	}
	defer func() { _ = p.Close() }()
	_ = p.objects.OwnTgid.Set(uint32(0))
	manyServices(b, p)
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Skip(err)
	}
	defer func() { _ = stats.Close() }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	programs := []*ebpf.Program{p.objects.Connect4, p.objects.Follow, p.objects.Getpeername4}
	read := func() (ns, runs float64) {
		for _, each := range programs {
			s, err := each.Stats()
			if err != nil {
				b.Fatal(err)
			}
			ns, runs = ns+float64(s.Runtime), runs+float64(s.RunCount)
		}
		return ns, runs
	}
	ns, runs := read()
	for b.Loop() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		other, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		_, _ = c.Close(), other.Close()
	}
	nsAfter, runsAfter := read()
	b.ReportMetric((nsAfter-ns)/float64(b.N), "ns-of-programs/op")
	b.ReportMetric((runsAfter-runs)/float64(b.N), "runs/op")
}
