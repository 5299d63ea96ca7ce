//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// compare measures f with the programs of a path that has 1,000 services, and then with programs that do nothing at the
// same hooks. The second figure is the price of hooks, and the difference that of the programs.
func compare(b *testing.B, f func() error) {
	b.Run("1,000 services", func(b *testing.B) {
		p := openMany(b)
		measure(b, append(p.forConnections(), p.forDatagrams()...), f)
	})
	b.Run("nothing", func(b *testing.B) {
		var hooks []hook
		for _, h := range append((&Path{}).forConnections(), (&Path{}).forDatagrams()...) {
			hooks = append(hooks, hook{doNothing(b, h.at), h.at})
		}
		dir, err := findCgroup("")
		if err != nil {
			b.Fatal(err)
		}
		links, err := attach(dir, hooks)
		b.Cleanup(func() { _ = detach(links) })
		if err != nil {
			b.Fatal(err)
		}
		measure(b, hooks, f)
	})
}

// doNothing returns a program for a hook that leaves all alone.
func doNothing(b *testing.B, at ebpf.AttachType) *ebpf.Program {
	b.Helper()
	spec := &ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: at,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}}
	if at == ebpf.AttachCGroupSockOps {
		spec.Type = ebpf.SockOps
	}
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		testproc.Cannot(b, "a program cannot be loaded", err)
	}
	b.Cleanup(func() { _ = p.Close() })
	return p
}

// measure calls f in the loop of b, and reports how long the programs run for one call. The kernel's own measuring is a
// large part of it.
func measure(b *testing.B, hooks []hook, f func() error) {
	b.Helper()
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		testproc.Cannot(b, "the kernel does not measure programs", err)
	}
	defer func() { _ = stats.Close() }()
	read := func() (ns, runs float64) {
		for _, h := range hooks {
			s, err := h.program.Stats()
			if err != nil {
				b.Fatal(err)
			}
			ns, runs = ns+float64(s.Runtime), runs+float64(s.RunCount)
		}
		return ns, runs
	}
	ns, runs := read()
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	nsAfter, runsAfter := read()
	b.ReportMetric((nsAfter-ns)/float64(b.N), "ns-of-programs/op")
	b.ReportMetric((runsAfter-runs)/float64(b.N), "runs/op")
}

// openMany opens a path for the whole host with 1,000 services. Nothing connects to them.
func openMany(b *testing.B) *Path {
	b.Helper()
	p, err := Open(Options{})
	if err != nil {
		testproc.Cannot(b, "the kernel path cannot be opened", err)
	}
	b.Cleanup(func() { _ = p.Close() })
	for i := range 1000 {
		if err := p.Set(Service{Name: fmt.Sprint("other", i), UDP: i%2 == 1,
			Listen:    []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.99.0.1"), uint16(8000+i))},
			Endpoints: []Endpoint{{Addr: netip.MustParseAddrPort("127.0.0.1:1")}}}); err != nil {
			b.Fatal(err)
		}
	}
	return p
}

// BenchmarkConnectionElsewhere measures what a connection that is not on the path pays, with both of its ends on this
// host, from connect(2) until both have closed.
func BenchmarkConnectionElsewhere(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	compare(b, func() error {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		other, err := l.Accept()
		if err != nil {
			return err
		}
		return errors.Join(c.Close(), other.Close())
	})
}

// BenchmarkDatagramElsewhere measures what a datagram that is not on the path pays, when it is sent and when it is
// received.
func BenchmarkDatagramElsewhere(b *testing.B) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	to, buffer := c.LocalAddr().(*net.UDPAddr).AddrPort(), make([]byte, 10)
	compare(b, func() error {
		if _, err := c.WriteToUDPAddrPort(buffer, to); err != nil {
			return err
		}
		_, _, err := c.ReadFromUDPAddrPort(buffer)
		return err
	})
}
