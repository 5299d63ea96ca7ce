package proxy

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// emptied serves a service that has just lost its only endpoint, and returns its address.
func (h *house) emptied(wait time.Duration) (addr string) {
	h.balancer.Configure("s", lb.Options{MaxQueue: 10, EmptyWait: wait})
	addr = h.serve(Service{}, greeter(h.T)).String()
	h.endpoints("s")
	return addr
}

// The clients of a service that has lost its last endpoint are served by the next one, whatever they have done while
// they waited.
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
			if err := within(t, answer); err != nil {
				t.Errorf("a client that waited: %v", err)
			}
		}
		_, third := told(t, h, addr)
		if err := within(t, third); err != nil {
			t.Errorf("a client that came later: %v", err)
		}
		quiet.Close()
		if n := h.stats().Refused; n != 0 {
			t.Errorf("%d refused, want none", n)
		}
	})
}

// When the time is over, the clients that wait are reset, and later ones are reset at once.
func TestClientsDoNotWaitForEver(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.emptied(200 * time.Millisecond)
		for range 3 {
			if _, answer := told(t, h, addr); !errors.Is(within(t, answer), syscall.ECONNRESET) {
				t.Error("a client was not reset")
			}
		}
		eventually(t, equals("refused", func() int64 { return h.stats().RefusedBy[RefusedNoEndpoints] }, 3))
	})
}

// Close does not wait for the clients that wait.
func TestCloseEndsTheWaitForAnEndpoint(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.emptied(time.Hour)
		_, answer := told(t, h, addr)
		eventually(t, equals("waiting", h.waiting, 1))
		h.Proxier.Close()
		if err := within(t, answer); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
	})
}
