package daemon

import (
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// mustParse returns the configuration in src.
func mustParse(t *testing.T, src string) *config.Config {
	t.Helper()
	cfg, diags := config.Parse("test.hcl", []byte(src), config.Options{Getenv: func(string) string { return "" }})
	if cfg == nil {
		t.Fatal(diags.Diagnostics)
	}
	return cfg
}

// Zero and "never" are converted to the values of the other packages: negative means off there, and zero means the
// default.
func TestZeroAndNeverInOptions(t *testing.T) {
	const never = `service "web" {
		listen             = 9000
		idle_timeout       = "never"
		half_close_timeout = "never"
		max_age            = "never"
		max_fails          = "never"
		max_connections    = "never"
	}`
	const zero = `service "web" {
		listen        = 9000
		sticky        = "0s"
		slow_start    = "0s"
		min_available = "0%"
		queue_timeout = "0s"
		empty_wait    = "0s"
		max_age       = "1h"
		max_age_grace = "0s"
		failback_hold = "0s"
		consul {
			datacenters = ["dc1", "dc2"]
			max_drop    = 0
			drop_hold   = "0s"
			hold_max    = "0s"
		}
	}`
	udp := func(argument string) string {
		return "service \"dns\" {\n listen = 9000\n protocol = \"udp\"\n" + argument + "\n}"
	}
	served := func(src string) proxy.Service { return proxyServices(mustParse(t, src), nil)[0] }
	balanced := func(src string) lb.Options { return balancing(mustParse(t, src).Services[0], nil) }
	watched := func(src string) discovery.Watch { return watchesOf(mustParse(t, src))[0] }
	for _, tt := range []struct {
		name      string
		got, want any
	}{
		{"idle_timeout never", served(never).IdleTimeout < 0, true},
		{"half_close_timeout never", served(never).HalfCloseTimeout < 0, true},
		{"max_age never", served(never).MaxAge <= 0, true},
		{"max_fails never", balanced(never).MaxFails < 0, true},
		{"max_connections never", balanced(never).MaxConnections, 0},
		{"sticky 0s", balanced(zero).Sticky, time.Duration(0)},
		{"slow_start 0s", balanced(zero).SlowStart, time.Duration(0)},
		{"min_available 0%", balanced(zero).MinAvailable < 0, true},
		{"queue_timeout 0s", balanced(zero).QueueTimeout <= 0, true},
		{"empty_wait 0s", balanced(zero).EmptyWait <= 0, true},
		{"empty_wait left out", balanced(never).EmptyWait, config.DefaultEmptyWait},
		{"empty_wait of udp", balanced(udp("")).EmptyWait, time.Duration(0)},
		{"max_age_grace 0s", served(zero).MaxAgeGrace < 0, true},
		{"failback_hold 0s", watched(zero).Failover.Hold < 0, true},
		{"max_drop 0", watched(zero).Guard.MaxDrop < 0, true},
		{"drop_hold 0s", watched(zero).Guard.Hold < 0, true},
		{"hold_max 0s", watched(zero).Guard.HoldMax, discovery.HoldMax{Critical: config.Off, Forgotten: config.Off}},
		{"responses never", served(udp(`responses = "never"`)).Responses, 0},
		{"responses left out", served(udp("")).Responses, 0},
		{"responses 0", served(udp("responses = 0")).Responses < 0, true},
		{"responses 1", served(udp("responses = 1")).Responses, 1},
		{"send_proxy_udp first", served(udp("send_proxy = \"v2\"\nsend_proxy_udp = \"first\"")).SendProxyFirst, true},
		{"send_proxy_udp left out", served(udp("send_proxy = \"v2\"")).SendProxyFirst, false},
		{"requests never", served(udp(`requests = "never"`)).Requests, 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, tt.got, tt.want)
		}
	}
}
