package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/config"
)

func TestPlainShowsEverythingButSecretsAndPlaces(t *testing.T) {
	cfg, diags := config.Load([]string{"../../example.hcl"}, config.Options{Getenv: func(name string) string {
		return map[string]string{"CONSUL_HTTP_TOKEN": "sesame-sesame", "CONSUL_HTTP_AUTH": "me:sesame-sesame"}[name]
	}})
	if cfg == nil {
		t.Fatal(diags)
	}
	text, err := json.Marshal(plain(cfg))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"log_level":"info"`, `"shutdown_grace":"10s"`, `"engine":"auto"`, `"tcp":"127.0.0.1:8510"`, `"token":"(secret)"`, `"ca_file":""`,
		`"name":"dns"`, `"protocol":"udp"`, `"listen":["127.0.0.1:9000","[::1]:9000"]`, `"half_close_timeout":"5m0s"`, `"db.example.com:5432"`,
		`"filter":"Service.Meta.version == ` + "`2`" + `"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	for _, unwanted := range []string{"sesame", "range", "example.hcl"} {
		if strings.Contains(string(text), unwanted) {
			t.Errorf("%s in %s", unwanted, text)
		}
	}
}

// What a lictor shows of its configuration can be read again, all of it: nothing in the example, nor among the defaults, would change.
func TestUnplainIsTheWayBack(t *testing.T) {
	getenv := func(name string) string {
		return map[string]string{"CONSUL_HTTP_TOKEN": "sesame-sesame", "CONSUL_HTTP_AUTH": "me:sesame-sesame"}[name]
	}
	for name, text := range map[string]string{"example.hcl": "", "small.hcl": "service \"web\" { listen = 9000 }\n", "leave.hcl": `
		access_log { path = "/tmp/x" }
		service "web" {
			listen = "[::1]:9000"
			on_leave {
				critical     = "30s"
				deregistered = "cut"
			}
		}`} {
		cfg, diags := config.Load([]string{"../../example.hcl"}, config.Options{Getenv: getenv})
		if text != "" {
			cfg, diags = config.Parse(name, []byte(text), config.Options{Getenv: getenv})
		}
		if cfg == nil {
			t.Fatal(diags)
		}
		shown, err := json.Marshal(plain(cfg))
		if err != nil {
			t.Fatal(err)
		}
		got := &config.Config{}
		if err := unplain(shown, reflect.ValueOf(got).Elem()); err != nil {
			t.Fatal(err)
		}
		got.Consul.Token, got.Consul.HTTPAuth = cfg.Consul.Token, cfg.Consul.HTTPAuth
		if c := compare(got, cfg); !c.empty() {
			var b strings.Builder
			_ = c.write(&b)
			t.Errorf("%s: something would change:\n%s", name, b.String())
		}
	}
	var got config.Config
	for _, bad := range []string{`[]`, `{"shutdown_grace": "soon"}`, `{"services": [{"listen": "x"}]}`, `{"engine": "steam"}`} {
		if err := unplain(json.RawMessage(bad), reflect.ValueOf(&got).Elem()); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestSnake(t *testing.T) {
	for name, want := range map[string]string{"HalfCloseTimeout": "half_close_timeout", "CAFile": "ca_file", "TLS": "tls", "HTTPAuth": "http_auth", "LogJSON": "log_json"} {
		if got := snake(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
