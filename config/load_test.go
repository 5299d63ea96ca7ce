package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2"
)

// loadText loads a configuration whose only file is src, with env as the environment.
func loadText(src string, env map[string]string) (*Config, Diagnostics) {
	return Parse("test.hcl", []byte(src), Options{Getenv: func(name string) string { return env[name] }})
}

func mustLoad(t *testing.T, src string, env map[string]string) *Config {
	t.Helper()
	cfg, diags := loadText(src, env)
	if diags.HasErrors() {
		t.Fatalf("unexpected errors:\n%s", textOf(diags))
	}
	return cfg
}

func textOf(d Diagnostics) string {
	var b strings.Builder
	_ = d.WriteText(&b, false)
	return b.String()
}

func addrs(texts ...string) (list []Listener) {
	for _, text := range texts {
		list = append(list, Listener{Addr: netip.MustParseAddrPort(text)})
	}
	return list
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestSmallestConfigGetsDefaults(t *testing.T) {
	got := mustLoad(t, `service "web" { listen = "127.0.0.1:9000" }`, nil)
	want := &Config{
		Consul:        Consul{Address: "127.0.0.1:8500", MaxWatches: 150},
		LogLevel:      "info",
		ShutdownGrace: 10 * time.Second,
		Metrics:       Metrics{Endpoints: true},
		Services: []Service{{
			Name:             "web",
			Listen:           addrs("127.0.0.1:9000"),
			ConnectTimeout:   time.Second,
			IdleTimeout:      time.Hour,
			HalfCloseTimeout: 5 * time.Minute,
			MaxAgeGrace:      30 * time.Second,
			MaxSessions:      65536,
			MaxFails:         2,
			MinAvailable:     50,
			MaxQueue:         1024,
			QueueTimeout:     5 * time.Second,
			EmptyWait:        3 * time.Second,
			Consul: &ConsulQuery{Service: "web", Statuses: []string{"passing"}, MaxDrop: 50,
				DropHold: 10 * time.Second, HoldMax: defaultHoldMax()},
		}},
	}
	ignored := cmp.Options{cmpopts.IgnoreTypes(hcl.Range{}),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}
	if diff := cmp.Diff(want, got, ignored); diff != "" {
		t.Errorf("config differs (-want +got):\n%s", diff)
	}
}

func TestEverythingIsRead(t *testing.T) {
	got := mustLoad(t, `
log_level      = "debug"
log_json       = true
shutdown_grace = "0s"
upgrade_grace  = "1h"
consul {
  address    = "https://consul.example.com:8501"
  token      = "a-b-c"
  datacenter = "dc1"
  max_watches = 40
  register   = true
  tls {
    server_name          = "server.dc1.consul"
    insecure_skip_verify = true
  }
}
region = "eu"
zone   = "eu-a"
access_log {
  path   = "access.log"
  format = "text"
  sample = 10
}
admin {
  listen     = 8510
  token_file = "load_test.go"
  hosts      = ["Lictor.example.com"]
}
metrics { endpoints = false }
service "b" {
  listen       = [":9000", 9001]
  protocol     = "udp"
  idle_timeout = "2m"
  max_sessions = 7
  send_proxy = "v2"
  accept_proxy { from = ["10.0.0.7"] }
  responses = 0
  requests = 1
  deny     = ["192.168.0.0/16", "2001:db8::/32"]
  balance      = "source_hash"
  check {
    interval = "3s"
    timeout  = "500ms"
    send     = "ping"
    expect   = "pong"
  }
  consul {
    service    = "bee"
    tags       = ["v2", "blue"]
    filter     = "Service.Meta.version == `+"`2`"+`"
    datacenter = "dc2"
    near       = "_agent"
    port       = "metrics"
    address    = "wan"
    statuses   = ["passing", "warning"]
    max_drop   = 0
    drop_hold  = "0s"
    hold_max {
      critical  = "0s"
      forgotten = "5s"
    }
  }
}
service "a" {
  consul { socket_paths = ["/run/app/*"] }
  listen             = "[::]:9000"
  allow              = ["10.0.0.0/8", "::1", "::ffff:192.168.0.0/112", "::ffff:192.0.2.7", "192.0.2.7"]
  deny               = ["10.0.0.1"]
  send_proxy         = "v1"
  transparent        = true
  prefer             = "meta:rack"
  prefer_strict      = true
  accept_proxy { from = ["10.0.0.7"] }
  connect_timeout    = "250ms"
  idle_timeout       = "never"
  half_close_timeout = "never"
  on_leave {
    critical  = "cut"
    unmatched = "30s"
  }
  max_age       = "1h"
  max_age_grace = "0s"

  balance                      = "least_connections"
  sticky                       = "30m"
  max_fails                    = "never"
  min_available                = "0%"
  slow_start                   = "1m"
  max_connections              = 100
  max_connections_per_endpoint = 10
  max_connections_per_client   = 3
  max_queue                    = 5
  queue_timeout                = "0s"
  empty_wait                   = "500ms"
  failover_on                  = "consul"
  check {}
  static {
    endpoints = ["10.0.0.5:80", "[2001:db8::7]:80", "DB.example.com:5432", "unix:///run/pg.sock"]
  }
}`, nil)
	want := &Config{
		Consul: Consul{Address: "https://consul.example.com:8501", Token: "a-b-c", MaxWatches: 40, Register: true,
			Datacenter: "dc1", TLS: TLS{ServerName: "server.dc1.consul", InsecureSkipVerify: true}},
		LogLevel: "debug",
		LogJSON:  true, ShutdownGrace: Off, UpgradeGrace: time.Hour,
		Region: "eu", Zone: "eu-a",
		AccessLog: &AccessLog{Path: "access.log", Sample: 10},
		Admin: Admin{TCP: netip.MustParseAddrPort("127.0.0.1:8510"), TokenFile: "load_test.go",
			Hosts: []string{"lictor.example.com"}},
		Services: []Service{{
			Name: "a", Listen: addrs("[::]:9000"),
			Allow: prefixes("10.0.0.0/8", "::1/128", "192.168.0.0/16", "192.0.2.7/32", "192.0.2.7/32"),
			Deny:  prefixes("10.0.0.1/32"), SendProxy: ProxyV1, Transparent: true,
			Prefer: "meta:rack", PreferStrict: true,
			AcceptProxy:    &AcceptProxy{From: prefixes("10.0.0.7/32"), Timeout: 3 * time.Second},
			ConnectTimeout: 250 * time.Millisecond, MaxSessions: 65536,
			IdleTimeout: Off, HalfCloseTimeout: Off, MaxAgeGrace: Off, MaxFails: Off, MinAvailable: Off,
			QueueTimeout: Off, EmptyWait: 500 * time.Millisecond,
			Balance: LeastConnections, Sticky: 30 * time.Minute, SlowStart: time.Minute,
			MaxConnections: 100, MaxConnectionsPerEndpoint: 10, MaxConnectionsPerClient: 3, MaxQueue: 5,
			OnLeave: OnLeave{Critical: LeaveCut, Unmatched: Leave(30 * time.Second)}, MaxAge: time.Hour,
			Consul: &ConsulQuery{Service: "a", Statuses: []string{"passing"}, SocketPaths: []string{"/run/app/*"},
				MaxDrop: 50, DropHold: 10 * time.Second, HoldMax: defaultHoldMax()},
			FailoverOn: FailoverOnConsul, FailoverBelow: 1, FailbackHold: 30 * time.Second,
			Check: &Check{Interval: 10 * time.Second, Timeout: 2 * time.Second},
			Static: &Static{Endpoints: []StaticEndpoint{
				{Addr: netip.MustParseAddrPort("10.0.0.5:80")},
				{Addr: netip.MustParseAddrPort("[2001:db8::7]:80")},
				{Host: "db.example.com", Addr: netip.AddrPortFrom(netip.Addr{}, 5432)}, {Path: "/run/pg.sock"},
			}},
		}, {
			Name: "b", Protocol: UDP, Listen: addrs("127.0.0.1:9000", "127.0.0.1:9001"), ConnectTimeout: time.Second,
			IdleTimeout:      2 * time.Minute,
			HalfCloseTimeout: 5 * time.Minute, MaxAgeGrace: 30 * time.Second, MaxSessions: 7, Responses: Off,
			Requests: 1, Deny: prefixes("192.168.0.0/16", "2001:db8::/32"), SendProxy: ProxyV2, SendProxyUDP: ProxyEach,
			AcceptProxy: &AcceptProxy{From: prefixes("10.0.0.7/32")},
			Balance:     SourceHash, MaxFails: 2, MinAvailable: 50, MaxQueue: 1024, QueueTimeout: 5 * time.Second,
			Check: &Check{Interval: 3 * time.Second, Timeout: 500 * time.Millisecond, Send: "ping", Expect: "pong"},
			Consul: &ConsulQuery{Service: "bee", Tags: []string{"v2", "blue"}, Filter: "Service.Meta.version == `2`",
				Datacenter: "dc2", Near: "_agent", Port: "metrics", Address: "wan",
				Statuses: []string{"passing", "warning"}, MaxDrop: Off, DropHold: Off,
				HoldMax: HoldMax{Critical: Off, Forgotten: 5 * time.Second}},
		}},
	}
	ignored := cmp.Options{cmpopts.IgnoreTypes(hcl.Range{}),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if diff := cmp.Diff(want, got, ignored); diff != "" {
		t.Errorf("config differs (-want +got):\n%s", diff)
	}
	if line := got.Services[1].Consul.FilterRange.Start.Line; line != 50 {
		t.Errorf("got the filter on line %d, want 50", line)
	}
}

func TestListenForms(t *testing.T) {
	tests := []struct{ written, want string }{
		{`9000`, "127.0.0.1:9000"},
		{`"9000"`, "127.0.0.1:9000"},
		{`":9000"`, "127.0.0.1:9000"},
		{`"localhost:9000"`, "127.0.0.1:9000"},
		{`"0.0.0.0:9000"`, "0.0.0.0:9000"},
		{`"[::]:9000"`, "[::]:9000"},
		{`"[::1]:9000"`, "[::1]:9000"},
		{`"[::ffff:10.0.0.1]:9000"`, "10.0.0.1:9000"},
		{`0`, "127.0.0.1:0"},
		{`["127.0.0.1:0"]`, "127.0.0.1:0"},
		{`"unix:///run/app/db.sock"`, "unix:///run/app/db.sock"},
		{`["unix:///run/a  group=22 mode=660"]`, "unix:///run/a mode=0660 group=22"},
		{`"unix:///run/a mode=0666 owner=app"`, "unix:///run/a owner=app"},
	}
	for _, tt := range tests {
		t.Run(tt.written, func(t *testing.T) {
			cfg := mustLoad(t, `service "web" { listen = `+tt.written+` }`, nil)
			got := cfg.Services[0].Listen
			if len(got) != 1 || got[0].String() != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			var again Listener
			if err := again.UnmarshalText([]byte(tt.want)); err != nil || again != got[0] {
				t.Errorf("%s means %+v, %v, want %+v", tt.want, again, err, got[0])
			}
		})
	}
}

func TestListenCollisions(t *testing.T) {
	tests := []struct {
		a, b    string
		collide bool
	}{
		{"127.0.0.1:9000", "127.0.0.1:9000", true},
		{"0.0.0.0:9000", "127.0.0.1:9000", true},
		{"127.0.0.1:9000", "0.0.0.0:9000", true},
		{"[::]:9000", "127.0.0.1:9000", true},
		{"[::]:9000", "0.0.0.0:9000", true},
		{"[::1]:9000", "[::]:9000", true},
		{"0.0.0.0:9000", "[::1]:9000", false},
		{"[::1]:9000", "127.0.0.1:9000", false},
		{"127.0.0.1:9000", "127.0.0.2:9000", false},
		{"127.0.0.1:9000", "127.0.0.1:9001", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"0.0.0.0:0", "127.0.0.1:0", false},
	}
	for _, tt := range tests {
		t.Run(tt.a+" "+tt.b, func(t *testing.T) {
			a, b := netip.MustParseAddrPort(tt.a), netip.MustParseAddrPort(tt.b)
			if got := (claim{addr: a}).collides(claim{addr: b}); got != tt.collide {
				t.Errorf("got %v, want %v", got, tt.collide)
			}
			if (claim{addr: a}).collides(claim{addr: b, protocol: UDP}) {
				t.Error("TCP collides with UDP")
			}
		})
	}
}

func TestDirectoriesMergeInNameOrder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := write("20.hcl", `service "web" { listen = 9000 }`)
	write("10.hcl", `log_level = "warn"`)
	write("notes.txt", `not HCL {`)
	write(".20.hcl", `an editor's { copy`)
	cfg, diags := Load([]string{dir, first}, Options{})
	if diags.HasErrors() {
		t.Fatalf("unexpected errors:\n%s", textOf(diags))
	}
	if cfg.LogLevel != "warn" || len(cfg.Services) != 1 {
		t.Errorf("got %+v, want both files, each once", cfg)
	}

	write("30.hcl", "log_level = \"info\"\nconsul {}\nservice \"web\" { listen = 9001 }")
	write("15.hcl", "consul {}")
	_, diags = Load([]string{dir}, Options{})
	got := textOf(diags)
	for _, want := range []string{"10.hcl:1", "15.hcl:1", "20.hcl:1", "30.hcl:1:1", "30.hcl:2:1", "30.hcl:3:9"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestUnreadablePaths(t *testing.T) {
	empty := t.TempDir()
	tests := []struct {
		name, want string
		paths      []string
	}{
		{"none", "Name a file", nil},
		{"missing", "no such file", []string{filepath.Join(empty, "missing.hcl")}},
		{"empty directory", "holds no *.hcl file", []string{empty}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, diags := Load(tt.paths, Options{})
			if got := textOf(diags); cfg != nil || strings.Count(got, "Error:") != 1 ||
				!strings.Contains(got, tt.want) {
				t.Errorf("got %v and:\n%s\nwant no configuration and one error with %q", cfg, got, tt.want)
			}
		})
	}
}

func TestExample(t *testing.T) {
	const path = "../example.hcl"
	cfg, diags := Load([]string{path}, Options{Getenv: func(string) string { return "" }})
	if len(diags.Diagnostics) > 0 {
		t.Fatalf("unexpected diagnostics:\n%s", textOf(diags))
	}
	if len(cfg.Services) != 4 {
		t.Errorf("got %d services, want 4", len(cfg.Services))
	}
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, schema := range []*hcl.BodySchema{rootSchema(), adminSchema(), accessLogSchema(), consulSchema(),
		tlsSchema(), serviceSchema(), querySchema(), staticSchema(), checkSchema(), onLeaveSchema(),
		meshServerSchema(), exposeSchema()} {
		for _, a := range schema.Attributes {
			if !regexp.MustCompile(`(?m)^[ #]*` + a.Name + ` *=`).Match(src) {
				t.Errorf("%s is not in example.hcl", a.Name)
			}
		}
		for _, b := range schema.Blocks {
			if !regexp.MustCompile(`(?m)^[ #]*` + b.Type + `\b.*\{$`).Match(src) {
				t.Errorf("the block %s is not in example.hcl", b.Type)
			}
		}
	}
	formatted, _ := Format(path, src)
	if string(formatted) != string(src) {
		t.Error("example.hcl is not formatted: run lictor fmt")
	}
}

func TestEnums(t *testing.T) {
	var p Protocol
	var b Balance
	if err := p.UnmarshalText([]byte("udp")); err != nil || p != UDP || p.String() != "udp" {
		t.Errorf("got %v, %v", p, err)
	}
	if err := p.UnmarshalText([]byte("tpc")); err == nil ||
		!strings.Contains(err.Error(), `Did you mean "tcp"? Write "tcp" or "udp"`) {
		t.Errorf("got %v, want a suggestion", err)
	}
	if err := b.UnmarshalText([]byte("round_robin")); err != nil || b.String() != "round_robin" {
		t.Errorf("got %v, %v", b, err)
	}
}

func TestOnLeaveForms(t *testing.T) {
	second := Leave(time.Second)
	tests := []struct {
		written string
		want    OnLeave
	}{
		{``, OnLeave{}},
		{`on_leave = null`, OnLeave{}},
		{`on_leave = "finish"`, OnLeave{}},
		{`on_leave = "cut"`, OnLeave{LeaveCut, LeaveCut, LeaveCut}},
		{`on_leave = "1s"`, OnLeave{second, second, second}},
		{`on_leave {}`, OnLeave{}},
		{`on_leave { deregistered = "1s" }`, OnLeave{Deregistered: second}},
	}
	for _, tt := range tests {
		t.Run(tt.written, func(t *testing.T) {
			cfg := mustLoad(t, "service \"web\" {\n listen = 9000\n"+tt.written+"\n}", nil)
			if got := cfg.Services[0].OnLeave; got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAdminListenForms(t *testing.T) {
	tests := []struct {
		written string
		want    Admin
	}{
		{`"off"`, Admin{Off: true}},
		{`8510`, Admin{TCP: netip.MustParseAddrPort("127.0.0.1:8510")}},
		{`"localhost:8510"`, Admin{TCP: netip.MustParseAddrPort("127.0.0.1:8510")}},
		{`"[::1]:8510"`, Admin{TCP: netip.MustParseAddrPort("[::1]:8510")}},
		{`"unix:///run/lictor/a.sock"`, Admin{Socket: "/run/lictor/a.sock"}},
		{`null`, Admin{}},
	}
	for _, tt := range tests {
		t.Run(tt.written, func(t *testing.T) {
			cfg := mustLoad(t, "admin { listen = "+tt.written+" }\nservice \"web\" { listen = 9000 }", nil)
			if diff := cmp.Diff(tt.want, cfg.Admin,
				cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
