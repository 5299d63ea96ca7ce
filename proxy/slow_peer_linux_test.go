package proxy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// dialNarrow dials with small socket buffers, so that few bytes are on their way at once.
func dialNarrow(t *testing.T, addr fmt.Stringer) testConn {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4<<10)
		})
	}}
	c, err := d.DialContext(context.Background(), "tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// A peer that reads one byte at a time gets all bytes, and the end.
func TestTCPReaderOfSingleBytes(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const size = 96 << 10
		sum := make(chan [32]byte, 1)
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			sum <- sendRandom(c, size, 5)
		}))
		c := dialNarrow(t, addr)
		got := make([]byte, 0, size)
		for b := make([]byte, 1); ; {
			if n, err := c.Read(b); n == 0 {
				if err != io.EOF {
					t.Error(err)
				}
				break
			}
			got = append(got, b[0])
		}
		if want := <-sum; sumBytes(got) != want {
			t.Errorf("got %d bytes, which differ from those that were sent", len(got))
		}
	})
}

// An answer is complete and its sender is gone, but a slow client still takes bytes from the kernel's buffers. Bytes
// that leave the kernel's buffers count as movement. A client that takes no bytes is idle.
func TestTCPSlowReaderGetsTheRestOfAnAnswer(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		const size = 200 << 10
		addr := h.serve(Service{HalfCloseTimeout: trickleLimit}, tcpServer(t, func(c testConn) {
			c.Write(make([]byte, size))
		}))
		slow, stuck := dialNarrow(t, addr), dialNarrow(t, addr)
		eventually(t, equals("bytes that the proxy has passed on", func() int64 { return h.stats().BytesDown }, 2*size))
		got := 0
		for b := make([]byte, 2<<10); ; time.Sleep(trickleLimit / 50) { // twice the limit for all
			n, err := slow.Read(b)
			if got += n; err != nil {
				if err != io.EOF || got != size {
					t.Errorf("got %d bytes of %d, then %v", got, size, err)
				}
				break
			}
		}
		slow.Close()
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		_, err := io.Copy(io.Discard, stuck)
		wantReset(t, err)
	})
}

// Peers that never read stop their senders. Peers that never read take little memory and do not slow other clients,
// until the idle timeout ends their connections.
func TestTCPPeersThatNeverRead(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const peers = maxPipes + 16 // more than there are pipes
		asked := make(chan struct{})
		var senders sync.WaitGroup
		fill := func(c testConn) {
			for b := make([]byte, 64<<10); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}
		addr := h.serve(Service{IdleTimeout: trickleLimit}, tcpServer(t, func(c testConn) {
			b := make([]byte, 1)
			if io.ReadFull(c, b); b[0] == 'e' {
				c.Write(b)
				echo(c)
				return
			}
			c.SetReadBuffer(16 << 10)
			c.SetWriteBuffer(16 << 10)
			fill(c)
			<-asked
		}))
		defer close(asked)
		defer senders.Wait()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range peers {
			c := dialNarrow(t, addr)
			senders.Go(func() { fill(c) })
		}
		eventually(t, equals("connections", func() int64 { return h.stats().Connections }, peers))
		quick := dialTCP(t, addr)
		for range 200 {
			exchange(t, quick, "e")
		}
		runtime.ReadMemStats(&after)
		// One buffer in each direction, of the proxy and of this test.
		if grown, limit := int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(peers*5*64<<10); grown > limit {
			t.Errorf("the heap grew by %d bytes, want %d at most", grown, limit)
		}
		if n := pipesOpen(h.engine); n > maxPipes {
			t.Errorf("%d pipes are open, want %d at most", n, maxPipes)
		}
		quick.Close()
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
	})
}

func sumBytes(b []byte) [32]byte { return sha256.Sum256(b) }
