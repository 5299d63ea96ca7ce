package proxy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tuneClients sets a socket option on all open connections to clients.
func (h *house) tuneClients(level, name, value int) {
	h.Helper()
	tuned := eachSocket(h.T, acceptedAt(h.Listeners()[0].Addr.AddrPort), func(fd int) {
		if err := unix.SetsockoptInt(fd, level, name, value); err != nil {
			h.Error(err)
		}
	})
	if tuned == 0 {
		h.Error("there are no clients")
	}
}

// stands returns a condition for eventually: n has stayed the same for so many calls that no more bytes move.
func stands(n func() int64) func() error {
	last, times := int64(-1), 0
	return func() error {
		if now := n(); now != last {
			last, times = now, 0
			return errPending
		}
		if times++; times < 50 {
			return errPending
		}
		return nil
	}
}

// dialGreeted returns a client that has received a byte from its endpoint.
func dialGreeted(t *testing.T, addr netip.AddrPort) testConn {
	t.Helper()
	c := dialTCP(t, addr)
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c
}

// Destinations that do not read hold no pipes, however many there are, so other bulk transfers still use splice(2).
// When they read again, they get every byte.
func TestTCPStalledDestinationsHoldNoPipes(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const stalled, size = maxPipes + 16, 1 << 20
		sent := &bytes.Buffer{}
		sendRandom(sent, size, 7)
		want := sumBytes(sent.Bytes())
		begin := make(chan struct{})
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			io.WriteString(c, "!")
			<-begin
			c.Write(sent.Bytes())
		}))
		var clients []testConn
		for range stalled {
			c := dialGreeted(t, addr)
			c.SetDeadline(time.Now().Add(5 * time.Minute))
			clients = append(clients, c)
		}
		h.tuneClients(unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10)
		close(begin)
		eventually(t, stands(func() int64 { return h.stats().BytesDown }))
		if n := h.stats().BytesDown; n >= stalled*size/2 {
			t.Fatalf("%d bytes of %d have gone to clients that do not read", n, stalled*size)
		}
		eventually(t, equals("pipes in use", func() int { return pipesLent(h.engine) }, 0))

		before := pipeLoans(h.engine)
		if sumAll(dialGreeted(t, addr)) != want {
			t.Error("a client that reads did not get the bytes that were sent")
		}
		if n := pipeLoans(h.engine) - before; n == 0 {
			t.Error("the client's bytes were copied, want them spliced")
		}

		var reading sync.WaitGroup
		for i, c := range clients {
			reading.Go(func() {
				if sumAll(c) != want {
					t.Errorf("client %d, which had stalled, did not get the bytes that were sent", i)
				}
			})
		}
		reading.Wait()
	})
}

// A destination may take less than its send buffer has space for, here because of TCP_NOTSENT_LOWAT. The bytes that it
// leaves in the pipe are not lost, and less is spliced at once then.
func TestTCPDestinationTakesLessThanItHasRoomFor(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const size = 16 << 20
		h.options.Loops = 1
		sent := make(chan [32]byte, 1)
		begin := make(chan struct{})
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			io.WriteString(c, "!")
			<-begin
			sent <- sendRandom(c, size, 8)
		}))
		c, hash, most := dialGreeted(t, addr), sha256.New(), pipeSize
		h.tuneClients(unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 8<<10)
		close(begin)
		eventually(t, stands(func() int64 { return h.stats().BytesDown })) // then there is much to splice
		for buf := make([]byte, 64<<10); ; {
			n, err := c.Read(buf)
			hash.Write(buf[:n])
			most = min(most, pipeSum(h.engine, func(pp *pipePool) int { return pp.most }))
			if err != nil {
				break
			}
		}
		if most == pipeSize {
			t.Error("no bytes were left in a pipe, so the test shows nothing")
		}
		if [32]byte(hash.Sum(nil)) != <-sent {
			t.Error("the bytes that arrived differ from those that were sent")
		}
	})
}

// A client that does not read has a complete answer in its socket and in the proxy's socket. The proxy's send buffer is
// so full that it would take no more, but the answer has no more bytes. At the idle timeout this is a proper end,
// because nothing is cut short.
func TestTCPIdleTimeoutWhileTheAnswerWaitsInFull(t *testing.T) {
	for size := 288 << 10; size <= 320<<10; size += 16 << 10 {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				begin := make(chan struct{})
				addr := h.serve(Service{IdleTimeout: 300 * time.Millisecond}, tcpServer(t, func(c testConn) {
					io.WriteString(c, "!")
					<-begin
					c.Write(make([]byte, size))
					c.Read(make([]byte, 1)) // until the proxy ends it
				}))
				c := dialGreeted(t, addr)
				h.tuneClients(unix.SOL_SOCKET, unix.SO_SNDBUF, 128<<10)
				close(begin)
				eventually(t, stands(func() int64 { return h.stats().BytesDown }))
				if n := h.stats().BytesDown; n != int64(size)+1 {
					t.Skipf("the sockets take only %d bytes", n)
				}
				eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
				if n, err := io.Copy(io.Discard, c); n != int64(size) || err != nil {
					t.Errorf("got %d bytes of %d, and %v, want all and a proper end", n, size, err)
				}
			})
		})
	}
}
