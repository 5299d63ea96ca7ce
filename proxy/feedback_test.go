package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-multierror"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// resetter returns a server that resets its connections, at once or after it has read a byte.
func resetter(t *testing.T, reads bool) netip.AddrPort {
	return tcpServer(t, func(c testConn) {
		if reads {
			_, _ = c.Read(make([]byte, 1))
		}
		c.SetLinger(0)
	})
}

// greeter returns a server that sends a word to each client and then echoes.
func greeter(t *testing.T) netip.AddrPort {
	return tcpServer(t, func(c testConn) {
		_, _ = c.Write([]byte("hello"))
		_, _ = io.Copy(c, c)
	})
}

// greeted dials addr and expects the greeter's word.
func greeted(addr netip.AddrPort) error {
	c, err := dialAs(addr.String())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != "hello" {
		return fmt.Errorf("got %q", b)
	}
	return nil
}

// If an endpoint accepts a connection and resets it before a byte has moved, the client gets another endpoint and does
// not notice.
func TestResetBeforeAnythingMovedCostsNobody(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, resetter(t, false), greeter(t), greeter(t))
		for i := range 50 {
			if err := greeted(addr); err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
		}
		if n := h.stats().Refused; n != 0 {
			t.Errorf("%d clients refused, want none", n)
		}
		if n := h.stats().DialsFailed; n > 20 {
			t.Errorf("%d dials failed for 50 clients, want at most 20: the endpoint should be ejected", n)
		}
	})
}

func TestResetBeforeAnythingMovedIsPassedOnIfThereIsNobodyElse(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, resetter(t, false), resetter(t, false))
		if err := greeted(addr); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
		eventually(t, equals("active", func() int64 { return h.stats().ConnectionsActive }, 0))
	})
}

// Bytes that an endpoint has taken cannot be sent again to another endpoint, because the first endpoint may have acted
// on them. A reset after an endpoint has taken bytes still counts against the endpoint.
func TestResetAfterTheClientSpokeCountsAgainstTheEndpoint(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		good := greeter(t)
		addr := h.serve(Service{}, resetter(t, true), good)
		resets := 0
		for range 100 {
			c, err := dialAs(addr.String())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte("x"))
			b := make([]byte, 5)
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			switch _, err := io.ReadFull(c, b); {
			case err == nil:
			case errors.Is(err, syscall.ECONNRESET):
				resets++
			default:
				t.Fatal(err)
			}
			c.Close()
		}
		// Two resets in a row eject the endpoint for a second. Each trial after that costs one more reset.
		if resets < 2 || resets > 8 {
			t.Errorf("%d of 100 clients were reset, want 2 and a few trials", resets)
		}
	})
}

// Lictor dials an endpoint that refuses once, and then once in 40 to 60 ms.
func TestRefusingEndpointIsLeftOut(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, deadPort(t), greeter(t))
		began := time.Now()
		for range 200 {
			if err := greeted(addr); err != nil {
				t.Fatal(err)
			}
		}
		if n, most := h.stats().DialsFailed, 2+int64(time.Since(began)/(40*time.Millisecond)); n < 1 || n > most {
			t.Errorf("%d dials failed, want 1 to %d", n, most)
		}
	})
}

// A UDP endpoint that refuses is left out for new sessions, and an endpoint that answers is back in use.
func TestRefusingUDPEndpointIsLeftOut(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		log := &testproc.Log{}
		h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
		h.balancer.Configure("s", lb.Options{Network: lb.UDP})
		addr := h.serve(Service{Protocol: UDP}, deadUDP(t), udpServer(t, func(b []byte) []byte { return b }))
		ask := func() error {
			c, err := net.Dial("udp", addr.String())
			if err != nil {
				return err
			}
			defer c.Close()
			b := make([]byte, 10)
			for range 100 { // the refusing endpoint may lose the first datagram
				_, _ = c.Write([]byte("x"))
				_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				if _, err = c.Read(b); err == nil {
					return nil
				}
			}
			return err
		}
		began := time.Now()
		for i := range 100 {
			if err := ask(); err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
		}
		want := "datagram refused, the client's next one goes to another endpoint"
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, log.String())
		}
		if n, most := h.stats().DialsFailed, 2+int64(time.Since(began)/(80*time.Millisecond)); n < 1 || n > most {
			t.Errorf("%d refusals for 100 clients, want 1 to %d", n, most)
		}
		s := h.balancer.Snapshot()[0]
		for _, e := range s.Endpoints {
			if e.Picks > 80 && e.State != lb.StateIn {
				t.Errorf("the state of the answering endpoint is %v", e.State)
			}
		}
	})
}

// A shortage in this process does not count against the endpoint.
func TestOwnTroubleIsNotBlamedOnTheEndpoint(t *testing.T) {
	b := lb.NewRoundRobin()
	b.OnUpdate([]lb.Endpoints{{Service: "s",
		Endpoints: []lb.Endpoint{{ID: "a", Addr: netip.MustParseAddrPort("127.0.0.1:9")}}}})
	s := newService(&Service{Name: "s"}, b, hclog.NewNullLogger(), 1)
	m, err := s.pick(loopback, lb.Tried{})
	if err != nil {
		t.Fatal(err)
	}
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		s.dialFailed(m, os.NewSyscallError("connect", errno))
	}
	if e := b.Snapshot()[0].Endpoints[0]; e.Failures != 0 || e.State != lb.StateIn {
		t.Errorf("got %+v, want no failures", e)
	}
	s.dialFailed(m, os.NewSyscallError("connect", syscall.ECONNREFUSED))
	if e := b.Snapshot()[0].Endpoints[0]; e.Failures != 1 || e.State != lb.StateEjected || e.Cause != lb.Refused {
		t.Errorf("got %+v, want it ejected", e)
	}
}

// Failed dials, retries and refused clients are counted by their cause.
func TestFailuresAreCountedByCause(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.balancer.Configure("s", lb.Options{MaxFails: -1})
		addr := h.serve(Service{}, deadPort(t), tcpServer(t, named("a")))
		for range 4 {
			ask(t, addr)
		}
		s := h.stats()
		if s.DialsFailedBy[lb.Refused] != s.DialsFailed || s.DialsFailed == 0 || s.Retries != s.DialsFailed ||
			s.RefusedBy != (RefusedBy{}) {
			t.Errorf("got %+v", s)
		}
		h.endpoints("s", deadPort(t), deadPort(t))
		lost := func() {
			if c, err := dialAs(addr.String()); err == nil { // the reset may come before Dial returns
				io.Copy(io.Discard, c)
				c.Close()
			}
		}
		lost()
		eventually(t, equals("unreached", func() int64 { return h.stats().RefusedBy[RefusedUnreached] }, 1))
		h.endpoints("s")
		lost()
		eventually(t, equals("without endpoints", func() int64 { return h.stats().RefusedBy[RefusedNoEndpoints] }, 1))
		h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Removed: true}})
		lost()
		eventually(t, equals("unknown", func() int64 { return h.stats().RefusedBy[RefusedUnknown] }, 1))
		if n := h.stats().Refused; n != 3 {
			t.Errorf("got %d refused in all, want 3", n)
		}
	})
}

func TestRefusals(t *testing.T) {
	tried := multierror.Append(nil, errors.New("dial"))
	for _, tt := range []struct {
		err  error
		want Refusal
	}{
		{lb.ErrMissingServiceEntry, RefusedUnknown},
		{lb.ErrMissingEndpoints, RefusedNoEndpoints},
		{whyNone(tried, lb.ErrMissingEndpoints), RefusedUnreached},
		{whyNone(tried, lb.ErrRetryBudget), RefusedRetries},
		{whyNone(tried, lb.ErrFull), RefusedFull},
		{fmt.Errorf("%w for 5s", lb.ErrFull), RefusedFull},
		{errOutOfDescriptors, RefusedDescriptors},
	} {
		if got := refusalOf(tt.err); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
	}
}

// Clients send at once, and endpoints reset at once. Each client gets an answer or a reset, and no connection remains.
func TestResetsUnderLoadLeaveNothing(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.balancer.Configure("s", lb.Options{MaxFails: -1}) // no ejection, so all endpoints are dialled again and again
		addr := h.serve(Service{}, resetter(t, false), greeter(t), resetter(t, true), greeter(t), deadPort(t))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 150 {
					c, err := dialAs(addr.String())
					if errors.Is(err, syscall.ECONNRESET) {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					_ = c.SetDeadline(time.Now().Add(20 * time.Second))
					_, _ = c.Write([]byte("x"))
					b := make([]byte, 5)
					if _, err := io.ReadFull(c, b); err == nil && string(b) != "hello" || err != nil &&
						!errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("got %q, %v, want hello or a reset", b, err)
					}
					c.Close()
				}
			})
		}
		wg.Wait()
		eventually(t, equals("active", func() int64 { return h.stats().ConnectionsActive }, 0))
		for _, e := range h.balancer.Snapshot()[0].Endpoints {
			if e.Open != 0 {
				t.Errorf("%s has %d open uses, want 0", e.ID, e.Open)
			}
		}
	})
}
