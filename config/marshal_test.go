package config

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestMarshalShowsEverythingButSecretsAndPlaces(t *testing.T) {
	cfg, diags := Load([]string{"../example.hcl"}, Options{Getenv: func(name string) string {
		return map[string]string{"CONSUL_HTTP_TOKEN": "sesame-sesame", "CONSUL_HTTP_AUTH": "me:sesame-sesame"}[name]
	}})
	if cfg == nil {
		t.Fatal(diags)
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"log_level":"info"`, `"shutdown_grace":"10s"`, `"engine":"auto"`, `"tcp":"127.0.0.1:8510"`,
		`"token":"(secret)"`, `"ca_file":""`,
		`"name":"dns"`, `"protocol":"udp"`, `"listen":["127.0.0.1:9000","[::1]:9000"]`, `"half_close_timeout":"5m0s"`,
		`"db.example.com:5432"`,
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

// The whole configuration that a Lictor shows can be read back. For the example and for the defaults Compare then finds
// no change.
func TestUnmarshalIsTheWayBack(t *testing.T) {
	getenv := func(name string) string {
		return map[string]string{"CONSUL_HTTP_TOKEN": "sesame-sesame", "CONSUL_HTTP_AUTH": "me:sesame-sesame"}[name]
	}
	for name, text := range map[string]string{"example.hcl": "", "small.hcl": "service \"web\" { listen = 9000 }\n",
		"leave.hcl": `
		access_log { path = "/tmp/x" }
		service "web" {
			listen = "[::1]:9000"
			allow  = ["10.0.0.0/8", "::1"]
			deny   = ["10.0.0.7"]
			send_proxy = "v2"
			transparent = true
			accept_proxy {
				from    = ["10.0.0.0/8"]
				timeout = "1s"
			}
			on_leave {
				critical     = "30s"
				deregistered = "cut"
			}
		}
		service "dns" {
			protocol       = "udp"
			listen         = 53
			send_proxy     = "v2"
			send_proxy_udp = "first"
			accept_proxy { from = ["10.0.0.0/8"] }
		}`} {
		cfg, diags := Load([]string{"../example.hcl"}, Options{Getenv: getenv})
		if text != "" {
			cfg, diags = Parse(name, []byte(text), Options{Getenv: getenv})
		}
		if cfg == nil {
			t.Fatal(diags)
		}
		shown, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		got := &Config{}
		if err := json.Unmarshal(shown, got); err != nil {
			t.Fatal(err)
		}
		got.AdoptSecrets(cfg)
		if c := Compare(got, cfg); !c.Empty() {
			var b strings.Builder
			_ = c.Write(&b)
			t.Errorf("%s: Compare found changes:\n%s", name, b.String())
		}
	}
	if shown, err := json.Marshal(&Config{}); err != nil || !strings.Contains(string(shown), `"http_auth":"","`) ||
		strings.Contains(string(shown), "(secret)") {
		t.Errorf("secrets that are not set show as %s, %v", shown, err)
	}
	older := &Config{} // the answer of a Lictor that has no argument metrics.endpoints
	if err := json.Unmarshal([]byte(`{}`), older); err != nil || !older.Metrics.Endpoints {
		t.Errorf("got %+v, %v", older.Metrics, err)
	}
	var got Config
	for _, bad := range []string{`[]`, `{"shutdown_grace": "soon"}`, `{"services": [{"listen": "x"}]}`,
		`{"engine": "steam"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestArgumentName(t *testing.T) {
	for name, want := range map[string]string{"HalfCloseTimeout": "half_close_timeout", "CAFile": "ca_file",
		"TLS": "tls", "HTTPAuth": "http_auth", "LogJSON": "log_json"} {
		if got := argumentName(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
