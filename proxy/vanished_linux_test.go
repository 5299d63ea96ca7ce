package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// lookOften makes peer checks frequent. Only the process of testnet.Inside may call it, before anything runs that reads
// these variables.
func lookOften() { peerGoneAfter, peerLookEvery = 500*time.Millisecond, 50*time.Millisecond }

// hostAt returns a listener on its own address. After vanish, no packet comes from that address any more, as if the
// host had lost its power.
func hostAt(t *testing.T, last byte) (l *net.TCPListener, vanish func()) {
	t.Helper()
	at := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, 0, last}), 32)
	testnet.AddAddress(t, "lo", at)
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, func() { testnet.RemoveAddress(t, "lo", at) }
}

// If the host of an endpoint vanishes while sent bytes are unacknowledged, the connection ends. Keep-alive does not
// detect this.
func TestPeerVanishesWithBytesInFlight(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	lookOften()
	last := byte(0)
	forEachEngine(t, func(t *testing.T, h *house) {
		last++
		l, vanish := hostAt(t, last)
		next := h.records()
		addr := h.serve(Service{}, l.Addr().(*net.TCPAddr).AddrPort())
		c := dialTCP(t, addr)
		server, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = server.Close() }()
		vanishes(t, vanish, server, c)
		if r := next(); r.Reason != ReasonEndpointFailed || r.Err != syscall.ETIMEDOUT {
			t.Errorf("end %q, error %v", r.Reason, r.Err)
		}
	})
}

// If the host of a client vanishes while sent bytes are unacknowledged, the connection ends.
func TestClientVanishesWithBytesInFlight(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	lookOften()
	last := byte(0)
	forEachEngine(t, func(t *testing.T, h *house) {
		last++
		from, vanish := hostAt(t, last)
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		next := h.records()
		addr := h.serve(Service{}, l.Addr().(*net.TCPAddr).AddrPort())
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.Addr().(*net.TCPAddr).IP}}
		conn, err := d.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		server, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = server.Close() }()
		vanishes(t, vanish, conn.(*net.TCPConn), server)
		if r := next(); r.Reason != ReasonClientFailed || r.Err != syscall.ETIMEDOUT {
			t.Errorf("end %q, error %v", r.Reason, r.Err)
		}
	})
}

// A healthy peer that reads nothing for a long time answers the kernel's probes, so it keeps its connection.
func TestPeerThatTakesNothingIsNotGone(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	lookOften()
	forEachEngine(t, func(t *testing.T, h *house) {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		addr := h.serve(Service{}, l.Addr().(*net.TCPAddr).AddrPort())
		c := dialTCP(t, addr)
		server, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = server.Close() }()
		sent, chunk := 0, make([]byte, 64<<10)
		for { // until no bytes move
			_ = c.SetWriteDeadline(time.Now().Add(4 * peerGoneAfter))
			n, err := c.Write(chunk)
			sent += n
			if err != nil {
				break
			}
		}
		time.Sleep(4 * peerGoneAfter) // longer than peerGoneAfter, so that the check could end the connection
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_ = server.SetReadDeadline(time.Now().Add(testproc.Patience))
		if n, err := io.Copy(io.Discard, server); err != nil || int(n) != sent {
			t.Errorf("%d of %d bytes came, then %v", n, sent, err)
		}
	})
}

// vanishes makes the host of gone vanish while bytes from other are on their way to it. vanishes waits until other is
// reset.
func vanishes(t *testing.T, vanish func(), gone, other testConn) {
	t.Helper()
	exchangeWith(t, gone, other)
	vanish()
	if _, err := other.Write([]byte("is anybody there?")); err != nil {
		t.Fatal(err)
	}
	_ = other.SetReadDeadline(time.Now().Add(testproc.Patience))
	if _, err := other.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the other peer got %v, want a reset", err)
	}
}

// exchangeWith sends a byte each way between a client and its server.
func exchangeWith(t *testing.T, ends ...testConn) {
	t.Helper()
	for i, c := range ends {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(ends[1-i], make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}
