package proxy

import (
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

// A session's socket has the same receive buffer as its listener.
func TestUDPSessionHasTheBufferOfItsListener(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server := udpServer(t, echoUDP)
		addr := h.serve(Service{Protocol: UDP}, server)
		query(t, dialUDP(t, addr), "x")
		want := 0
		eachSocket(t, listening(addr), func(fd int) { want = receiveBuffer(t, fd) })
		sessions := eachSocket(t, connectedTo(server), func(fd int) {
			if got := receiveBuffer(t, fd); got != want {
				t.Errorf("the buffer of a session's socket has %d bytes, want %d as that of the listener", got, want)
			}
		})
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
		eachSocket(t, listening(addr), func(fd int) {
			sys.SetOption(int32(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) // the kernel gives its minimum
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
