package main

import (
	"encoding/json"
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
		`"name":"dns"`, `"protocol":"udp"`, `"listen":["127.0.0.1:9000","[::1]:9000"]`, `"half_close_timeout":"5m0s"`, `"host":"db.example.com"`,
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

func TestSnake(t *testing.T) {
	for name, want := range map[string]string{"HalfCloseTimeout": "half_close_timeout", "CAFile": "ca_file", "TLS": "tls", "HTTPAuth": "http_auth", "LogJSON": "log_json"} {
		if got := snake(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
