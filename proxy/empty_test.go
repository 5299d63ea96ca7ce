package proxy

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// emptied serves a service that has just lost its only endpoint. emptied returns the listener's address.
func (h *house) emptied(wait time.Duration) (addr string) {
	h.balancer.Configure("s", lb.Options{MaxQueue: 10, EmptyWait: wait})
	addr = h.serve(Service{}, greeter(h.T)).String()
	h.endpoints("s")
	return addr
}

// Clients that wait at a service without endpoints are served by the next endpoint. What the clients did while they
// waited does not matter.
func TestClientsWaitForTheFirstEndpoint(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.emptied(time.Hour)
		quiet, first := told(t, h, addr)
		eventually(t, equals("waiting", h.waiting, 1))
		sending, second := told(t, h, addr)
		if _, err := sending.Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		if err := sending.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		eventually(t, equals("waiting", h.waiting, 2))
		leaving, _ := told(t, h, addr)
		eventually(t, equals("waiting", h.waiting, 3))
		leaving.Close()
		eventually(t, equals("waiting", h.waiting, 2))

		h.endpoints("s", greeter(t))
		for _, answer := range []<-chan error{first, second} {
			if err := testproc.Receive(t, "an answer", answer); err != nil {
				t.Errorf("a client that waited: %v", err)
			}
		}
		_, third := told(t, h, addr)
		if err := testproc.Receive(t, "an answer", third); err != nil {
			t.Errorf("a client that came later: %v", err)
		}
		quiet.Close()
		if n := h.stats().Refused; n != 0 {
			t.Errorf("%d refused, want none", n)
		}
	})
}

// A waitCounter counts the clients that were queued.
type waitCounter struct {
	lb.LoadBalancer
	waits atomic.Int64
}

// Wait implements lb.LoadBalancer.
func (w *waitCounter) Wait(service string, client netip.AddrPort, tried lb.Tried, ready func(*lb.Member, error)) (
	*lb.Waiter, error) {
	waiter, err := w.LoadBalancer.Wait(service, client, tried, ready)
	if err == nil {
		w.waits.Add(1)
	}
	return waiter, err
}

// When EmptyWait is over, waiting clients are reset. Later clients are reset at once and do not wait.
func TestClientsDoNotWaitForEver(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		counter := &waitCounter{LoadBalancer: h.balancer}
		h.options.LoadBalancer = counter
		addr := h.emptied(300 * time.Millisecond)
		if _, answer := told(t, h, addr); !errors.Is(testproc.Receive(t, "an answer", answer), syscall.ECONNRESET) {
			t.Error("the client that waited was not reset")
		}
		waits := counter.waits.Load() // 1, or 0 if the client came late
		for range 3 {
			if _, answer := told(t, h, addr); !errors.Is(testproc.Receive(t, "an answer", answer), syscall.ECONNRESET) {
				t.Error("a later client was not reset")
			}
		}
		eventually(t, equals("refused", func() int64 { return h.stats().RefusedBy[RefusedNoEndpoints] }, 4))
		if n := counter.waits.Load(); n != waits {
			t.Errorf("%d clients waited after the time was over, want none", n-waits)
		}
	})
}

// Close does not wait for queued clients.
func TestCloseEndsTheWaitForAnEndpoint(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.emptied(time.Hour)
		_, answer := told(t, h, addr)
		eventually(t, equals("waiting", h.waiting, 1))
		h.Proxier.Close()
		if err := testproc.Receive(t, "an answer", answer); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
	})
}
