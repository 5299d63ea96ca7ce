package main

import (
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/daemon"
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

func TestTrafficLine(t *testing.T) {
	got := trafficLine([]daemon.Traffic{{Service: "web", Total: 17, Open: 2, Up: 1000, Down: 3 << 20, Refused: 1},
		{Service: "dns"}})
	want := "web: 2 open of 17, 1000 B up, 3.0 MiB down, 1 refused; dns: 0 open of 0, 0 B up, 0 B down"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
