package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testcert"
)

func TestWhatMeshWorksWith(t *testing.T) {
	var ca CertificateFiles
	ca.CertFile, ca.KeyFile = testcert.NewAuthority(t, "root").Issue(t, testcert.Request{}).Write(t, t.TempDir(), "one")
	files := fmt.Sprintf("cert_file = %q\nkey_file = %q\n", ca.CertFile, ca.KeyFile)
	for _, tt := range []struct {
		name, listen, more string
	}{
		{"nothing", "9000", ""},
		{"query", "9000", "consul {\nservice = \"billing\"\ndatacenter = \"dc2\"\ntags = [\"v2\"]\n" +
			"filter = \"x == y\"\nnear = \"_agent\"\nmax_drop = 10\nstatuses = [\"passing\", \"warning\"]\n}"},
		{"failover", "9000", "failover_on = \"consul\"\nfailover_below = 2\nfailback_hold = \"1m\""},
		{"balancing", "9000", "balance = \"source_hash\"\nsticky = \"1m\"\nmax_connections = 5\non_leave = \"cut\""},
		{"headers", "9000", "send_proxy = \"v2\"\naccept_proxy {\nfrom = [\"10.0.0.1\"]\n}"},
		{"TLS of clients", "9000", "tls {\n" + files + "}"},
		{"check by connection", "9000", "check {}"},
		{"check of another port", "9000", "check {\nhttp = \"/health\"\nport = 8080\n}"},
		{"every loopback address", `["127.0.0.9:9000", "[::1]:9000", "[::ffff:127.0.0.1]:9001"]`, ""},
		{"a Unix socket", `"unix:///run/app/db.sock"`, ""},
		{"allowed clients", `"0.0.0.0:9000"`, "allow = [\"10.0.0.0/8\"]"},
		{"clients with certificates", `"0.0.0.0:9000"`,
			"tls {\n" + files + fmt.Sprintf("client_ca_file = %q\n", ca.CertFile) + "}"},
	} {
		cfg, diags := loadText(fmt.Sprintf("service \"web\" {\nlisten = %s\nmesh { as = \"front-end_2.x\" }\n%s\n}\n",
			tt.listen, tt.more), nil)
		if cfg == nil || len(diags.Diagnostics) > 0 {
			t.Errorf("%s: got %s", tt.name, textOf(diags))
			continue
		}
		if s := cfg.Services[0]; (s.Consul.Statuses == nil) == strings.Contains(tt.more, "statuses") {
			t.Errorf("%s: got statuses %q", tt.name, s.Consul.Statuses)
		}
		if s := cfg.Services[0]; s.Mesh.As != "front-end_2.x" || s.FailoverBelow < 1 || s.FailbackHold <= 0 {
			t.Errorf("%s: got %+v, failover below %d, failback hold %v", tt.name, s.Mesh, s.FailoverBelow,
				s.FailbackHold)
		}
	}
}

// TestOpenIdentity checks that neither deny nor a certificate of its own makes up for what says who may come.
func TestOpenIdentity(t *testing.T) {
	for listen, refused := range map[string]bool{
		`"0.0.0.0:9000"`: true, `"[::]:9000"`: true, `"10.0.0.5:9000"`: true, `"[::1]:9000"`: false,
		`[9000, "192.0.2.1:9000"]`: true,
	} {
		cfg, diags := loadText(fmt.Sprintf("service \"web\" {\nlisten = %s\ndeny = [\"10.9.0.0/16\"]\n"+
			"mesh { as = \"web\" }\n}\n", listen), nil)
		if got := cfg == nil; got != refused {
			t.Errorf("%s: refused: %v\n%s", listen, got, textOf(diags))
		}
	}
}
