package main

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/daemon"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestParseForward(t *testing.T) {
	for arg, want := range map[string]forward{
		"web:9000":     {"web", 9000, config.TCP},
		"dns:5300/udp": {"dns", 5300, config.UDP},
		"dns:5300/tcp": {"dns", 5300, config.TCP},
	} {
		if got, err := parseForward(arg); got != want || err != nil {
			t.Errorf("%s: got %v, %v, want %v", arg, got, err, want)
		}
	}
	for _, arg := range []string{"", ":80", "web:0", "web:x", "web:70000", "web:80/sctp"} {
		if f, err := parseForward(arg); err == nil {
			t.Errorf("%s: got %v, want an error", arg, f)
		}
	}
}

func TestForwardPortIsTheSameNextTime(t *testing.T) {
	for _, arg := range []string{"web", "dns/udp"} {
		a, err := parseForward(arg)
		if err != nil || a.port < firstChoice || a.port >= firstChoice+choices {
			t.Fatalf("got %v, %v", a, err)
		}
		if b, _ := parseForward(arg); b != a {
			t.Errorf("got %v, then %v", a, b)
		}
	}
}

func TestForwardConfigurationTakesAnyName(t *testing.T) {
	c := &forwardCommand{tags: pathList{"${x}", `a"b`}}
	text := c.configuration([]forward{{"we${1}b", 9000, config.TCP}, {"we${1}b", 9001, config.UDP}})
	cfg, diags := config.Parse("", text, config.Options{Getenv: func(string) string { return "" }})
	if cfg == nil {
		t.Fatal(diags.Diagnostics)
	}
	if q := cfg.Services[0].Consul; q.Service != "we${1}b" || strings.Join(q.Tags, " ") != `${x} a"b` ||
		len(cfg.Services) != 2 {
		t.Errorf("got %+v of %s", q, text)
	}
}

func TestForwardThroughTheMesh(t *testing.T) {
	c := &forwardCommand{mesh: true, as: "front"}
	text := c.configuration([]forward{{"billing", 9000, config.TCP}})
	cfg, diags := config.Parse("", text, config.Options{Getenv: func(string) string { return "" }})
	if cfg == nil {
		t.Fatal(diags.Diagnostics)
	}
	if s := cfg.Services[0]; s.Mesh == nil || s.Mesh.As != "front" || s.Consul.Service != "billing" {
		t.Errorf("got %+v of %s", s, text)
	}
}

func TestTrafficLines(t *testing.T) {
	got := trafficLines([]daemon.Traffic{{Service: "web", Total: 17, Open: 2, Up: 1000, Down: 3 << 20, Refused: 1},
		{Service: "dns"}})
	want := []string{"web: 2 open of 17, 1000 B up, 3.0 MiB down, 1 refused", "dns: 0 open of 0, 0 B up, 0 B down"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A port in use is not chosen. A TCP port and a UDP port of the same number do not conflict.
func TestForwardChoosesAFreePort(t *testing.T) {
	for _, protocol := range []config.Protocol{config.TCP, config.UDP} {
		f := forward{service: "lictor-test-" + t.Name(), protocol: protocol}
		first := choosePort(f)
		addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), first)
		var taken io.Closer
		var err error
		if protocol == config.UDP {
			taken, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
		} else {
			taken, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(addr))
		}
		if err != nil {
			t.Fatal(err)
		}
		if isFree(protocol, addr) {
			t.Errorf("%v: a port in use is reported as free", protocol)
		}
		if next := choosePort(f); next == first || next < firstChoice || next >= firstChoice+choices {
			t.Errorf("%v: got %d while %d is taken", protocol, next, first)
		}
		if err := taken.Close(); err != nil {
			t.Fatal(err)
		}
		if again := choosePort(f); again != first {
			t.Errorf("%v: got %d when it is free again, want %d", protocol, again, first)
		}
	}
}

// Of each service and tag that Consul does not have, forward says so, and names what is like it.
func TestForwardOfWhatConsulDoesNotHave(t *testing.T) {
	t.Parallel()
	catalog := &daemon.Catalog{Tags: map[string][]string{"consul": {}, "postgres": {"primary", "replica"}, "web": {}}}
	for _, tt := range []struct {
		q    config.ConsulQuery
		want string
	}{
		{config.ConsulQuery{Service: "web"}, ""},
		{config.ConsulQuery{Service: "postgres", Tags: []string{"replica", "primary"}}, ""},
		{config.ConsulQuery{Service: "nosuch"}, `there is no service "nosuch" in Consul`},
		{config.ConsulQuery{Service: "postgrs", Tags: []string{"primary"}},
			`there is no service "postgrs" in Consul; did you mean "postgres"?`},
		{config.ConsulQuery{Service: "wbe", Datacenter: "dc2"},
			`there is no service "wbe" in Consul of datacenter "dc2"; did you mean "web"?`},
		{config.ConsulQuery{Service: "postgres", Tags: []string{"primry"}},
			`no instance of service "postgres" in Consul has the tag "primry"; did you mean "primary"?`},
	} {
		equal(t, unknown(&tt.q, catalog), tt.want)
	}
	catalog.Filtered = true
	equal(t, unknown(&config.ConsulQuery{Service: "nosuch"}, catalog),
		`there is no service "nosuch" in Consul; the token may not see all services`)
}

// The catalog need not have the name of a service in the mesh, so forward does not warn that the name is missing.
func TestForwardWarnsOfNoServiceInTheMesh(t *testing.T) {
	t.Parallel()
	consul := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/catalog/services" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("X-Consul-Index", "1")
		fmt.Fprint(w, `{"billing-sidecar": []}`)
	}))
	defer consul.Close()
	for _, tt := range []struct {
		mesh bool
		want string
	}{
		{false, "lictor forward: there is no service \"billing\" in Consul; did you mean \"billing-sidecar\"?\n"},
		{true, ""},
	} {
		said := &testproc.Log{}
		c := &forwardCommand{console: console{err: said}, consul: consul.URL, mesh: tt.mesh, as: "front"}
		text := c.configuration([]forward{{"billing", 9000, config.TCP}})
		cfg, diags := config.Parse("", text, config.Options{Getenv: func(string) string { return "" }})
		if cfg == nil {
			t.Fatal(diags.Diagnostics)
		}
		c.warn(t.Context(), cfg)
		equal(t, said.String(), tt.want)
	}
}

// A service that is given twice gets two names in the configuration, and one in Consul.
func TestForwardOfAServiceTwice(t *testing.T) {
	t.Parallel()
	c := &forwardCommand{consul: "consul.example.com:8500"}
	text := c.configuration([]forward{{"web", 9000, config.TCP}, {"dns", 53, config.UDP}, {"web", 9001, config.TCP}})
	cfg, diags := config.Parse("", text, config.Options{Getenv: func(string) string { return "" }})
	if cfg == nil {
		t.Fatal(diags.Diagnostics)
	}
	got := ""
	for _, s := range cfg.Services {
		got += fmt.Sprintln(s.Name, s.Protocol, s.Listen, s.Consul.Service, len(s.Consul.Tags))
	}
	equal(t, got, "dns udp [127.0.0.1:53] dns 0\nweb tcp [127.0.0.1:9000] web 0\nweb-2 tcp [127.0.0.1:9001] web 0\n")
	if cfg.Consul.Address != "consul.example.com:8500" || cfg.LogLevel != "warn" || cfg.ShutdownGrace != config.Off {
		t.Errorf("got %+v, %s, %v", cfg.Consul.Address, cfg.LogLevel, cfg.ShutdownGrace)
	}
}

func TestBytesText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 30: "5.0 GiB",
		1 << 40: "1.0 TiB", 1 << 50: "1.0 PiB", math.MaxInt64: "8.0 EiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
