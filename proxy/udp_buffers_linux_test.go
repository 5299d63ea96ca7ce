package proxy

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// receiveBuffer returns the size of a socket's receive buffer.
func receiveBuffer(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// onListener calls f with the descriptors of the only listener's sockets.
func (h *house) onListener(f func(fds []int)) {
	h.Helper()
	for _, s := range h.Proxier.sockets {
		fds, err := s.descriptors()
		if err != nil {
			h.Fatal(err)
		}
		f(fds)
		for _, fd := range fds {
			os.NewFile(uintptr(fd), "").Close()
		}
	}
}

// A session's socket has the same receive buffer as its listener.
func TestUDPSessionHasTheBufferOfItsListener(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP}, udpServer(t, echoUDP))
		query(t, dialUDP(t, addr), "x")
		want := 0
		h.onListener(func(fds []int) { want = receiveBuffer(t, fds[0]) })
		sessions := 0
		see := func(fd int) {
			sessions++
			if got := receiveBuffer(t, fd); got != want {
				t.Errorf("the buffer of a session's socket has %d bytes, want %d as that of the listener", got, want)
			}
		}
		switch e := h.engine.(type) {
		case *loopEngine:
			for _, l := range e.loops {
				l.do(func() {
					for _, s := range l.sockets {
						if x, ok := s.(*loopSession); ok {
							see(int(x.fd))
						}
					}
				})
			}
		case *portable:
			for _, s := range h.Proxier.sockets {
				for _, x := range s.proxySocket.(*udpSocket).sessions.snapshot() {
					raw, err := x.io.conn.SyscallConn()
					if err != nil {
						t.Fatal(err)
					}
					raw.Control(func(fd uintptr) { see(int(fd)) })
				}
			}
		}
		if sessions != 1 {
			t.Errorf("%d sessions, want 1", sessions)
		}
	})
}

// Exactly the datagrams that the kernel drops at a listener are counted.
func TestUDPCountsWhatTheKernelDrops(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Hold = true // so that no goroutine reads
		addr := h.serve(Service{Protocol: UDP}, udpServer(t, echoUDP))
		h.onListener(func(fds []int) {
			for _, fd := range fds {
				sys.SetOption(int32(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) // the kernel gives its minimum
			}
		})
		const sent = 100
		c := dialUDP(t, addr)
		if n := h.stats().DatagramsOverrun; n != 0 {
			t.Fatalf("%d datagrams are counted as dropped before any was sent", n)
		}
		for range sent {
			c.Write([]byte("x"))
		}
		dropped := h.stats().DatagramsOverrun
		if dropped == 0 || dropped == sent {
			t.Fatalf("%d of %d datagrams are counted as dropped, want some", dropped, sent)
		}
		h.Begin(nil)
		eventually(t, equals("datagrams up", func() int64 { return h.stats().DatagramsUp }, sent-dropped))
		if n := h.stats().DatagramsOverrun; n != dropped {
			t.Errorf("%d datagrams are counted as dropped, want %d still", n, dropped)
		}
	})
}
