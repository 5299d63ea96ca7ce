package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testcert"
)

// TestOffKernelPath checks which services can be on the kernel path, and what is said of the others.
func TestOffKernelPath(t *testing.T) {
	certs := testcert.NewAuthority(t, "root").Issue(t, testcert.Request{})
	cert, key := certs.Write(t, t.TempDir(), "one")
	for _, tt := range []struct {
		name, listen, more string
		want               string // the beginning of the reason; empty: the service can be on the path
	}{
		{"the smallest one", "9000", "", ""},
		{"all addresses", `["0.0.0.0:9000", "[::]:9001", 0]`, "", ""},
		{"what the balancer does", "9000", "max_fails = 5\nmin_available = \"10%\"\nslow_start = \"1m\"\n" +
			"prefer = \"zone\"\nempty_wait = \"10s\"\nconnect_timeout = \"2s\"\ncheck {}", ""},
		{"names and failover", "9000", "consul {}\nstatic { endpoints = [\"db.example.com:80\"] }", ""},
		{"times that never end", "9000", "idle_timeout = \"never\"\nhalf_close_timeout = \"never\"", ""},
		{"udp", "9000", "protocol = \"udp\"\nidle_timeout = \"5m\"", ""},
		{"requests", "9000", "protocol = \"udp\"\nrequests = 5", "has requests"},
		{"responses", "9000", "protocol = \"udp\"\nresponses = 1", "has responses"},
		{"no responses", "9000", "protocol = \"udp\"\nresponses = 0", "has responses"},
		{"limit of sessions", "9000", "protocol = \"udp\"\nmax_sessions = 5", "has max_sessions"},
		{"least connections", "9000", "balance = \"least_connections\"", `has balance = "least_connections"`},
		{"random", "9000", "balance = \"random_two\"", `has balance = "random_two"`},
		{"hash", "9000", "balance = \"source_hash\"", `has balance = "source_hash"`},
		{"sticky", "9000", "sticky = \"1m\"", "has sticky"},
		{"names of TLS", "9000", "sni = [\"a.example.com\"]", "has sni, or"},
		{"tls", "9000", fmt.Sprintf("tls {\ncert_file = %q\nkey_file = %q\n}", cert, key), "has tls"},
		{"endpoint_tls", "9000", "endpoint_tls {}", "has endpoint_tls"},
		{"mesh", "9000", "mesh { as = \"web\" }", "has mesh"},
		{"accept_proxy", "9000", "accept_proxy { from = [\"10.0.0.1\"] }", "has accept_proxy"},
		{"send_proxy", "9000", "send_proxy = \"v1\"", "has send_proxy"},
		{"transparent", "9000", "transparent = true", "has transparent"},
		{"allow", "9000", "allow = [\"127.0.0.0/8\"]", "has allow"},
		{"deny", "9000", "deny = [\"10.0.0.0/8\"]", "has deny"},
		{"limit", "9000", "max_connections = 1", "has max_connections,"},
		{"limit of endpoints", "9000", "max_connections_per_endpoint = 1", "has max_connections_per_endpoint,"},
		{"limit of clients", "9000", "max_connections_per_client = 1", "has max_connections_per_client,"},
		{"max_age", "9000", "max_age = \"1h\"", "has max_age"},
		{"idle_timeout", "9000", "idle_timeout = \"1h\"", "has idle_timeout or"},
		{"half_close_timeout", "9000", "half_close_timeout = \"5m\"", "has idle_timeout or"},
		{"on_leave", "9000", "on_leave { critical = \"cut\" }", ""},
		{"a Unix socket", `[9000, "unix:///run/web.sock"]`, "", "listens on a Unix socket"},
		{"a link", `"[fe80::1%lo]:9000"`, "", "listens on a link-local"},
		{"socket_paths", "9000", "consul { socket_paths = [\"/run/*\"] }", "may have Unix sockets"},
		{"a static Unix socket", "9000", "static { endpoints = [\"unix:///run/web.sock\"] }", "may have Unix sockets"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := fmt.Sprintf("service \"web\" {\nlisten = %s\nkernel_path = \"auto\"\n%s\n}\n", tt.listen, tt.more)
			cfg, diags := loadText(text, nil)
			if cfg == nil {
				t.Fatal(textOf(diags))
			}
			got := cfg.OffKernelPath()["web"]
			if tt.want == "" && got != "" || !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			_, diags = loadText(strings.Replace(text, "auto", "on", 1), nil)
			if diags.HasErrors() != (tt.want != "") || !strings.Contains(textOf(diags), tt.want) {
				t.Errorf("with \"on\": %s", textOf(diags))
			}
		})
	}
}

// TestKernelPathOfAll checks which services take the mode of the top level, and what concerns all services.
func TestKernelPathOfAll(t *testing.T) {
	cfg := configured(t, "kernel_path = \"on\"\nkernel_path_cgroup = \"/app.slice\"\nservice \"a\" { listen = 1 }\n"+
		"service \"b\" {\nlisten = 2\nkernel_path = \"auto\"\n}\n"+
		"service \"c\" {\nlisten = 3\nkernel_path = \"off\"\n}\n")
	for i, want := range []KernelPath{KernelPathOn, KernelPathAuto, KernelPathOff} {
		if got := cfg.Services[i].KernelPath; got != want {
			t.Errorf("%s: got %v, want %v", cfg.Services[i].Name, got, want)
		}
	}
	if cfg.KernelPathCgroup != "/app.slice" || !cfg.WantsKernelPath() || !cfg.NeedsKernelPath() {
		t.Errorf("got group %q, wants %v, needs %v", cfg.KernelPathCgroup, cfg.WantsKernelPath(), cfg.NeedsKernelPath())
	}
	if cfg = configured(t, "service \"a\" { listen = 1 }\n"); cfg.WantsKernelPath() || cfg.NeedsKernelPath() {
		t.Error("the kernel path is not off by default")
	}
	shared := configured(t, "service \"a\" {\nlisten = 1\nsni = [\"a.example.com\"]\n}\nservice \"b\" { listen = 1 }\n")
	for name, why := range shared.OffKernelPath() {
		if !strings.HasPrefix(why, "has sni, or") {
			t.Errorf("%s: got %q", name, why)
		}
	}
	if n := len(shared.OffKernelPath()); n != 2 {
		t.Errorf("%d services of one listener are off the path, want 2", n)
	}
	logged := configured(t, "access_log {\npath = \"/tmp/x\"\n}\nservice \"a\" { listen = 1 }\n")
	if why := logged.OffKernelPath()["a"]; !strings.HasPrefix(why, "has an access_log") {
		t.Errorf("with an access log: got %q", why)
	}
	for _, text := range []string{"kernel_path_cgroup = \"app.slice\"\n", "kernel_path = \"on\"\n" +
		"access_log {\npath = \"/tmp/x\"\n}\n"} {
		if _, diags := loadText(text+"service \"a\" { listen = 1 }\n", nil); !diags.HasErrors() {
			t.Errorf("accepted: %s", text)
		}
	}
}
