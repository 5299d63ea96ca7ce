package daemon

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/healthcheck"
	"github.com/lictor-proxy/lictor/lb"
)

// A held endpoint is probed with its service's HTTP check. If the check gets no answer, the endpoint is probed by
// connecting.
func TestHeldEndpointsAreProbedByTheirCheck(t *testing.T) {
	var status atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(status.Load()))
	}))
	defer server.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections in its backlog and sends nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	balancer := lb.NewRoundRobin()
	d := &Daemon{prober: lb.NewProber(balancer), checker: healthcheck.New(healthcheck.Options{})}
	defer d.prober.Close()
	defer d.checker.Close()
	d.checker.Apply(map[string]healthcheck.Check{
		"db": {Path: "/primary", Interval: time.Hour, Timeout: time.Second}})
	at := func(a net.Addr) lb.Endpoint {
		return lb.Endpoint{ID: "n/a", Addr: netip.MustParseAddrPort(a.String()), Weight: 1}
	}
	tests := []struct {
		name, service string
		status        int32
		endpoint      lb.Endpoint
		held          bool
	}{
		{"fit", "db", 200, at(server.Listener.Addr()), true},
		{"not fit", "db", 503, at(server.Listener.Addr()), false},
		{"no check", "web", 503, at(server.Listener.Addr()), true},
		{"no answer", "db", 200, at(silent.Addr()), true},
		{"nothing there", "db", 200, lb.Endpoint{Addr: netip.MustParseAddrPort("127.0.0.1:1")}, false},
	}
	for _, tt := range tests {
		status.Store(tt.status)
		if err := (heldProber{d}).Probe(t.Context(), tt.service, tt.endpoint); (err == nil) != tt.held {
			t.Errorf("%s: got %v, want held %v", tt.name, err, tt.held)
		}
	}
}
