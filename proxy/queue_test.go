package proxy

import (
	"bufio"
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// told dials addr. told returns the connection and a channel that receives the error of the first read. A nil error
// means that "hello" has come.
func told(t *testing.T, h *house, addr string) (testConn, <-chan error) {
	t.Helper()
	first := make(chan error, 1)
	c, err := dialAs(addr)
	if errors.Is(err, syscall.ECONNRESET) { // the reset came before Dial returned
		first <- err
		return nil, first
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		_, err := bufio.NewReader(c).Peek(5)
		first <- err
	}()
	return c, first
}

// accepted returns how many clients have been accepted and have not left.
func (h *house) accepted() int64 { return h.stats().ConnectionsActive }

// waiting returns how many clients are in the queue.
func (h *house) waiting() int64 { return h.balancer.Snapshot()[0].Waiting }

func TestClientsQueueForRoom(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.balancer.Configure("s", lb.Options{MaxConnections: 1, MaxQueue: 3, QueueTimeout: time.Minute})
		addr := h.serve(Service{}, greeter(t)).String()
		a, first := told(t, h, addr)
		if err := testproc.Receive(t, "an answer", first); err != nil {
			t.Fatal(err)
		}
		var conns []testConn
		var answers []<-chan error
		for i := range 3 {
			c, first := told(t, h, addr)
			conns, answers = append(conns, c), append(answers, first)
			eventually(t, equals("waiting", h.waiting, int64(1+i))) // keeps the order of the queue
		}
		_, fifth := told(t, h, addr)
		if err := testproc.Receive(t, "an answer", fifth); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client that found the queue full got %v, want a reset", err)
		}
		eventually(t, equals("refused", func() int64 { return h.stats().Refused }, 1))

		conns[0].Close() // the client leaves the queue
		eventually(t, equals("clients", h.accepted, 3))
		a.Close()
		if err := testproc.Receive(t, "an answer", answers[1]); err != nil {
			t.Errorf("the second queued client: %v", err)
		}
		select {
		case err := <-answers[2]:
			t.Errorf("the third queued client was answered before a slot was free: %v", err)
		default:
		}
		conns[1].SetLinger(0)
		conns[1].Close()
		if err := testproc.Receive(t, "an answer", answers[2]); err != nil {
			t.Errorf("the third queued client: %v", err)
		}
		conns[2].Close()
		eventually(t, equals("clients", h.accepted, 0))
		if n := h.stats().Refused; n != 1 {
			t.Errorf("%d refused, want 1", n)
		}
	})
}

func TestQueuedClientIsRefusedInTheEnd(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.balancer.Configure("s", lb.Options{MaxConnections: 1, MaxQueue: 3, QueueTimeout: 50 * time.Millisecond})
		addr := h.serve(Service{}, greeter(t)).String()
		_, first := told(t, h, addr)
		if err := testproc.Receive(t, "an answer", first); err != nil {
			t.Fatal(err)
		}
		_, second := told(t, h, addr)
		if err := testproc.Receive(t, "an answer", second); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
	})
}

// The bytes that a client sent while it waited arrive, and so does its half-close.
func TestQueuedClientMaySendAndHalfClose(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.balancer.Configure("s", lb.Options{MaxConnections: 1, MaxQueue: 3, QueueTimeout: time.Minute})
		addr := h.serve(Service{}, greeter(t)).String()
		a, first := told(t, h, addr)
		if err := testproc.Receive(t, "an answer", first); err != nil {
			t.Fatal(err)
		}
		c, err := dialAs(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		eventually(t, equals("clients", h.accepted, 2))
		a.Close()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(c)
		if b, err := r.Peek(12); err != nil || string(b) != "hellorequest" {
			t.Errorf("got %q, %v, want hello and the request back", b, err)
		}
	})
}

// Shutdown waits for queued clients no longer than their queue timeout, and Close does not wait at all. The slot of the
// first client is not given to a queued client.
func TestCloseEndsTheQueue(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.balancer.Configure("s", lb.Options{MaxConnections: 1, MaxQueue: 10, QueueTimeout: time.Hour})
		var served atomic.Int32
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			served.Add(1)
			_, _ = c.Write([]byte("hello"))
			_, _ = io.Copy(c, c)
		})).String()
		var answers []<-chan error
		for i := range 5 {
			_, first := told(t, h, addr)
			answers = append(answers, first)
			if i > 0 {
				eventually(t, equals("waiting", h.waiting, int64(i)))
			} else if err := testproc.Receive(t, "an answer", first); err != nil {
				t.Fatal(err)
			}
		}
		h.Proxier.Close()
		for _, first := range answers[1:] {
			if err := testproc.Receive(t, "an answer", first); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
		}
		if n := served.Load(); n != 1 {
			t.Errorf("%d connections reached the endpoint, want the first one only", n)
		}
	})
}

// A freed slot is not given to clients that wait at another listener of the service either, even if Close has not
// reached that listener yet.
func TestCloseEndsTheQueueOfAllListeners(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.balancer.Configure("s", lb.Options{MaxConnections: 1, MaxQueue: 10, QueueTimeout: time.Hour})
		var served atomic.Int32
		one, other := freePort(t, TCP), freePort(t, TCP)
		h.serve(Service{Listen: listen(one, other)}, tcpServer(t, func(c testConn) {
			served.Add(1)
			_, _ = c.Write([]byte("hello"))
			_, _ = io.Copy(c, c)
		}))
		_, first := told(t, h, one.String())
		if err := testproc.Receive(t, "an answer", first); err != nil {
			t.Fatal(err)
		}
		var answers []<-chan error
		for i := range 4 {
			_, answer := told(t, h, other.String())
			answers = append(answers, answer)
			eventually(t, equals("waiting", h.waiting, int64(i+1)))
		}
		h.Proxier.drained() // as in Close, which then closes the listeners one by one
		h.Proxier.sockets[socketKey{TCP, lb.Addr{AddrPort: one}, ""}].Close()
		for _, answer := range answers {
			if err := testproc.Receive(t, "an answer", answer); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
		}
		if n := served.Load(); n != 1 {
			t.Errorf("%d connections reached the endpoint, want the first one only", n)
		}
	})
}
