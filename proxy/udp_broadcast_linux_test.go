package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// broadcaster returns an IPv4 socket that may broadcast.
func broadcaster(t *testing.T) *net.UDPConn {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		control := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
		})
		if control != nil {
			return control
		}
		return err
	}}
	c, err := config.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// settle waits until each loop has handled its earlier events.
func (h *house) settle() {
	if e, ok := h.engine.(*loopEngine); ok {
		for range 3 {
			for _, l := range e.loops {
				l.do(func() {})
			}
		}
	}
}

// A datagram that is broadcast to a listener is forwarded once, however many sockets the listener has. The answer comes
// from an address of this host.
func TestUDPBroadcastIsForwardedOnce(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0", "127.255.255.255:0"} {
		t.Run(listen, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				h.options.Loops = 4
				var got atomic.Int64
				addr := h.serve(Service{Protocol: UDP, Listen: []netip.AddrPort{netip.MustParseAddrPort(listen)}},
					udpServer(t, func(b []byte) []byte { got.Add(1); return b }))
				c := broadcaster(t)
				to := netip.AddrPortFrom(netip.MustParseAddr("127.255.255.255"), addr.Port())
				const sent = 10
				for i := range sent {
					if _, err := c.WriteToUDPAddrPort(fmt.Append(nil, i), to); err != nil {
						t.Fatal(err)
					}
				}
				if netip.MustParseAddrPort(listen).Addr().IsUnspecified() {
					for range sent {
						c.SetReadDeadline(time.Now().Add(20 * time.Second))
						_, from, err := c.ReadFromUDPAddrPort(make([]byte, 10))
						if err != nil || from.Addr() != loopback.Addr() {
							t.Fatalf("got an answer from %v, %v, want from %v", from, err, loopback.Addr())
						}
					}
				}
				eventually(t, equals("datagrams", got.Load, sent))
				h.settle()
				if s := h.stats(); s.DatagramsUp != sent || s.Sessions != 1 {
					t.Errorf("%d datagrams were forwarded by %d sessions, want %d by one", s.DatagramsUp, s.Sessions,
						sent)
				}
			})
		})
	}
}
