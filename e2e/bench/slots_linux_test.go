package main

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownBackend runs a backend in this process.
func ownBackend(t *testing.T) (*backend, netip.AddrPort) {
	t.Helper()
	l, c, err := listenBackend()
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{}
	ctx, cancel := context.WithCancel(t.Context())
	udpDone, tcpDone := make(chan struct{}), make(chan struct{})
	go func() { defer close(udpDone); b.serveUDP(c) }()
	go func() { defer close(tcpDone); acceptAll(ctx, b, l) }()
	t.Cleanup(func() {
		cancel()
		l.Close()
		c.Close()
		<-udpDone
		<-tcpDone
	})
	return b, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(l.Addr().(*net.TCPAddr).Port))
}

func acceptAll(ctx context.Context, b *backend, l net.Listener) {
	for ctx.Err() == nil {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go b.serve(c.(*net.TCPConn))
	}
}

// Every kind of slot works directly against a backend, and counts its work.
func TestSlotsDoTheirWork(t *testing.T) {
	b, addr := ownBackend(t)
	free, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(free)
	tcp, err := open([]netip.AddrPort{addr}, 6)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(tcp)
	udp, err := openUDP([]netip.AddrPort{addr}, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(udp)
	for _, test := range []struct {
		name  string
		work  int
		rate  int
		slots []slot
	}{
		{"requests", 500, 0, requestSlots(tcp[:4], 2)},
		{"exchanges", 200, 0, exchangeSlots([]netip.AddrPort{addr}, 8, opEcho, messageSize)},
		{"transfers", 8, 0, exchangeSlots([]netip.AddrPort{addr}, 2, opDown, mib)},
		{"bulk up", 8, 0, []slot{&bulkSlot{fd: tcp[4], op: opUp, share: 8}}},
		{"bulk down", 8, 0, []slot{&bulkSlot{fd: tcp[5], op: opDown, share: 8}}},
		{"datagrams", 300, 0, []slot{&datagramSlot{fd: udp[0]}}},
		{"datagrams with an address", 300, 0, []slot{&datagramSlot{fd: free, to: &unix.SockaddrInet4{
			Addr: addr.Addr().As4(), Port: int(addr.Port())}}}},
		{"new clients", 100, 5000, []slot{&newSlot{addr: addr}, &newSlot{addr: addr}}},
	} {
		l, err := newLoop(test.work)
		if err != nil {
			t.Fatal(err)
		}
		l.rate = test.rate
		if err := l.run(test.slots, 20*time.Second); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if l.done != test.work || l.errors != 0 || l.latency.total != test.work {
			t.Errorf("%s: got %d done, %d errors (%v), %d latencies, want %d, 0, %[6]d", test.name, l.done, l.errors,
				l.lastErr, l.latency.total, test.work)
		}
		l.close()
	}
	before := b.datagrams.Load()
	l, err := newLoop(100)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.run([]slot{&oneWaySlot{fd: udp[1], size: oneWaySize}}, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if got := b.datagrams.Load() - before; got != 100 {
		t.Errorf("one way: got %d datagrams, want 100", got)
	}
}

func TestFailuresAreCounted(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close() // nothing listens there now
	loop, err := newLoop(20)
	if err != nil {
		t.Fatal(err)
	}
	defer loop.close()
	if err := loop.run(exchangeSlots([]netip.AddrPort{addr}, 4, opEcho, messageSize), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if loop.done != 0 || loop.errors != 20 || loop.lastErr != unix.ECONNREFUSED {
		t.Errorf("got %d done, %d errors (%v), want 0, 20, refused", loop.done, loop.errors, loop.lastErr)
	}
}
