package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testdns"
	"github.com/lictor-proxy/lictor/lb"
)

// quickNames resolves names that begin with "quick", and no others.
func quickNames(name string) []netip.Addr {
	if strings.HasPrefix(name, "quick") {
		return []netip.Addr{loopback.Addr()}
	}
	return nil
}

// namesAt returns n endpoints with different host names and the same port.
func namesAt(prefix string, n int, port uint16) (set []lb.Endpoint) {
	for i := range n {
		name := fmt.Sprintf("%s%d.test", prefix, i)
		set = append(set, lb.Endpoint{ID: name, Host: name, Addr: netip.AddrPortFrom(netip.Addr{}, port)})
	}
	return set
}

// applyTwo serves "slow" and "quick", each on its own address.
func (h *house) applyTwo(p Protocol) (slow, quick netip.AddrPort) {
	h.Helper()
	h.start()
	var services []Service
	for _, name := range []string{"quick", "slow"} {
		services = append(services, Service{
			Name: name, Protocol: p, Listen: []netip.AddrPort{loopback}, ConnectTimeout: time.Minute,
		})
	}
	if err := h.Apply(services); err != nil {
		h.Fatal(err)
	}
	all := h.Listeners()
	return all[1].Addr.AddrPort, all[0].Addr.AddrPort
}

// Lookups use few descriptors, however many names stay without an answer. Meanwhile clients of other services are
// served, also by names that were found before. The limit of lookups counts against no endpoint.
func TestSlowNamesTakeFewDescriptors(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		s := testdns.Start(t, quickNames)
		h.options.MaxDescriptors = 2000
		slow, quick := h.applyTwo(TCP)
		server := tcpServer(t, named("quick"))
		h.balancer.OnUpdate([]lb.Endpoints{
			{Service: "slow", Endpoints: namesAt("slow", 300, server.Port())},
			{Service: "quick", Endpoints: namesAt("quick", 1, server.Port())},
		})
		if got := ask(t, quick); got != "quick" {
			t.Fatal(got)
		}
		for range 300 {
			dialTCP(t, slow)
		}
		eventually(t, equals("clients", func() int64 { return h.Snapshot()[1].ConnectionsActive }, 300))
		most := 2 * MaxLookups(h.options.MaxDescriptors)
		eventually(t, func() error {
			if open, _ := s.Sockets(); open < most*3/4 {
				return errPending
			}
			return nil
		})
		for range 20 {
			if got := ask(t, quick); got != "quick" {
				t.Errorf("got %q, want quick", got)
			}
		}
		h.Proxier.Close()
		if open, had := s.Sockets(); open != 0 || had > most {
			t.Errorf("lookups have %d sockets and had %d, want none and at most %d", open, had, most)
		}
	})
}

// If an endpoint's name could not be looked up in time because of other lookups, its client is refused after the
// connect timeout. The endpoint is not ejected for that.
func TestWaitForALookupIsNoFaultOfTheEndpoint(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		s := testdns.Start(t, quickNames)
		h.options.Resolver = lb.NewResolver(1)
		slow, other := h.applyTwo(TCP)
		server := tcpServer(t, named("quick"))
		h.balancer.OnUpdate([]lb.Endpoints{
			{Service: "slow", Endpoints: namesAt("slow", 1, server.Port())},
			{Service: "quick", Endpoints: namesAt("quick", 1, server.Port())},
		})
		dialTCP(t, slow)
		eventually(t, equals("sockets", func() int { open, _ := s.Sockets(); return open }, 2))
		services := []Service{
			{Name: "slow", Listen: []netip.AddrPort{loopback}, ConnectTimeout: time.Minute},
			{Name: "quick", Listen: []netip.AddrPort{loopback}, ConnectTimeout: 50 * time.Millisecond},
		}
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		waits := dialTCP(t, other)
		if _, err := waits.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
		stats := h.Snapshot()[0]
		if stats.DialsFailedBy[0] != 1 || stats.DialsFailed != 1 {
			t.Errorf("%d dials failed, %d of them here, want 1", stats.DialsFailed, stats.DialsFailedBy[0])
		}
		for _, service := range h.balancer.Snapshot() {
			if service.Service == "quick" && service.Endpoints[0].Failures != 0 {
				t.Errorf("the endpoint has %d failures, want none", service.Endpoints[0].Failures)
			}
		}
	})
}

// UDP lookups use few descriptors too.
func TestSlowNamesTakeFewDescriptorsOverUDP(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		s := testdns.Start(t, quickNames)
		h.options.MaxDescriptors = 2000
		slow, quick := h.applyTwo(UDP)
		server := udpServer(t, says("quick"))
		h.balancer.OnUpdate([]lb.Endpoints{
			{Service: "slow", Endpoints: namesAt("slow", 300, server.Port())},
			{Service: "quick", Endpoints: namesAt("quick", 1, server.Port())},
		})
		if got := query(t, dialUDP(t, quick), "x"); got != "quick:x" {
			t.Fatal(got)
		}
		for range 200 {
			_, _ = dialUDP(t, slow).Write([]byte("x"))
		}
		eventually(t, func() error {
			if h.Snapshot()[1].SessionsActive < 100 {
				return errPending
			}
			return nil
		})
		for range 20 {
			if got := query(t, dialUDP(t, quick), "x"); got != "quick:x" {
				t.Errorf("got %q, want quick:x", got)
			}
		}
		h.Proxier.Close()
		most := 2 * MaxLookups(h.options.MaxDescriptors)
		if open, had := s.Sockets(); open != 0 || had > most {
			t.Errorf("lookups have %d sockets and had %d, want none and at most %d", open, had, most)
		}
	})
}

func TestMaxLookups(t *testing.T) {
	for _, tt := range []struct {
		descriptors int64
		want        int
	}{{0, 32}, {-1, 32}, {1 << 20, 32}, {1024, 32}, {256, 8}, {64, 2}, {10, 1}} {
		if got := MaxLookups(tt.descriptors); got != tt.want {
			t.Errorf("of %d descriptors, %d lookups, want %d", tt.descriptors, got, tt.want)
		}
	}
}
