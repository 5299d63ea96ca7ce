package config

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2"
)

const exposeWeb = "mesh { bind = \"10.0.0.5\" }\nexpose \"web\" {}\n"

func TestExposeDefaults(t *testing.T) {
	cfg := configured(t, exposeWeb)
	want := []Expose{{
		Name: "web", MaxQueue: DefaultMaxQueue, QueueTimeout: DefaultQueueTimeout,
		HandshakeTimeout: DefaultHandshakeTimeout, ConnectTimeout: DefaultConnectTimeout,
		IdleTimeout: DefaultIdleTimeoutTCP, HalfCloseTimeout: DefaultHalfCloseTimeout, MaxAgeGrace: DefaultMaxAgeGrace,
	}}
	same := cmp.Options{cmpopts.IgnoreTypes(hcl.Range{}), cmpopts.EquateComparable(netip.AddrPort{}, netip.Addr{})}
	if diff := cmp.Diff(want, cfg.Expose, same); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
	mesh := &MeshServer{netip.MustParseAddr("10.0.0.5"), PortRange{21000, 21255}}
	if diff := cmp.Diff(mesh, cfg.Mesh, same); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

// A service of the configuration and an exposed one may have the same name in Consul. Their order is that of the names.
func TestExposeBesideServices(t *testing.T) {
	cfg := configured(t, "mesh {\nbind = \"::ffff:10.0.0.5\"\nports = \"300 - 300\"\n}\n"+
		"expose \"web\" { local = 8080 }\n"+
		"expose \"api_2.x-y\" { local = \"[::1]:8081\" }\nservice \"web\" {\nlisten = [\"10.0.0.6:300\", 21000]\n}\n"+
		"service \"mesh:other\" { listen = \"10.0.0.5:301\" }\n")
	var got []string
	for _, e := range cfg.Expose {
		got = append(got, e.Name, e.Local.String())
	}
	if want := "api_2.x-y [::1]:8081 web 127.0.0.1:8080"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if cfg.Mesh.Bind != netip.MustParseAddr("10.0.0.5") || cfg.Mesh.Ports != (PortRange{300, 300}) {
		t.Errorf("got %+v", cfg.Mesh)
	}
}

func TestAllowedIdentities(t *testing.T) {
	for text, valid := range map[string]bool{
		"web": true, "spiffe://td.consul/ns/default/dc/dc1/svc/web": true, "spiffe://td/ap/x/ns/a/dc/dc1/svc/web": true,
		"a/b": false, "spiffe:///svc/web": false, "spiffe://td/ns/default/dc/dc1/svc/": false,
		"x spiffe://td/ns/default/dc/dc1/svc/web": false, "spiffe://td/agent/client/dc/dc1/id/x": false, "*": false,
	} {
		cfg, _ := loadText("mesh { bind = \"10.0.0.5\" }\n"+
			"expose \"web\" { allow_identities = ["+Quote(text)+"] }\n", nil)
		if got := cfg != nil; got != valid {
			t.Errorf("%q: valid: got %v, want %v", text, got, valid)
		}
	}
}

func TestCompareOfExpose(t *testing.T) {
	permissive := "mesh { bind = \"10.0.0.5\" }\nexpose \"web\" { intentions = \"permissive\" }\n"
	moved := "mesh { bind = \"10.0.0.6\" }\nexpose \"web\" {}\n"
	const none, top = "service \"x\" { listen = 1 }\n", "+ mesh.bind = \"10.0.0.5\"\n+ mesh.ports = \"21000-21255\"\n"
	for _, tt := range []struct{ name, old, next, summary, diff string }{
		{"added", none, none + exposeWeb, "1 exposed service added, changed: mesh.bind, mesh.ports",
			top + "+ expose \"web\"\n    + intentions = \"enforce\"\n"},
		{"changed", exposeWeb, permissive, "1 exposed service changed",
			"~ expose \"web\"\n    ~ intentions = \"enforce\" -> \"permissive\"\n"},
		{"removed", exposeWeb + none, none, "1 exposed service removed, changed: mesh.bind, mesh.ports",
			strings.ReplaceAll(top, "+ ", "- ") + "- expose \"web\"\n"},
		{"moved", exposeWeb, moved, "changed: mesh.bind", "~ mesh.bind = \"10.0.0.5\" -> \"10.0.0.6\"\n"},
		{"as it was", exposeWeb, "\n" + exposeWeb, "nothing to change", ""},
	} {
		c := Compare(configured(t, tt.old), configured(t, tt.next))
		var b strings.Builder
		if err := c.Write(&b); err != nil {
			t.Fatal(err)
		}
		if b.String() != tt.diff || c.Summary() != tt.summary {
			t.Errorf("%s: got %q:\n%swant %q:\n%s", tt.name, c.Summary(), b.String(), tt.summary, tt.diff)
		}
	}
}

// The output of a running lictor is read back by plan.
func TestExposeIsReadBack(t *testing.T) {
	cfg := configured(t, "mesh { bind = \"2001:db8::7\" }\n"+
		"expose \"web\" {\nlocal = 8080\nintentions = \"permissive\"\n"+
		"unknown_intentions = \"allow\"\nallow_identities = [\"a\"]\nidle_timeout = \"never\"\nsend_proxy = \"v2\"\n"+
		"max_connections_per_identity = 3\nqueue_timeout = \"0s\"\n}\n")
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	back := &Config{}
	if err := json.Unmarshal(text, back); err != nil {
		t.Fatal(err)
	}
	if c := Compare(back, cfg); !c.Empty() {
		t.Errorf("got changes: %s in %s", c.Summary(), text)
	}
}

func TestExposedNames(t *testing.T) {
	if a, b := ExposedName("web", 1), ExposedName("web", 3); a != "mesh:web" || b != "mesh:web:3" {
		t.Errorf("got %q and %q", a, b)
	}
}

// Sidecars are registered at the first address of Consul, which must not be that of another host.
func TestExposeAtTheAgentOfThisHost(t *testing.T) {
	for addresses, valid := range map[string]bool{
		`"10.0.0.9:8500"`: true, `["10.0.0.9:8500"]`: true, `["127.0.0.1:8500", "10.0.0.9:8500"]`: true,
		`["unix:///run/consul.sock", "10.0.0.9:8500"]`: true, `["https://[::1]:8501", "https://10.0.0.9:8501"]`: true,
		`["10.0.0.5:8500", "10.0.0.9:8500"]`: true, `["agent.example:8500", "10.0.0.9:8500"]`: true,
		`["10.0.0.9:8500", "127.0.0.1:8500"]`: false, `["https://[2001:db8::9]", "https://[::1]:8501"]`: false,
	} {
		cfg, diags := loadText("consul { address = "+addresses+" }\n"+exposeWeb, nil)
		if got := cfg != nil; got != valid {
			t.Errorf("%s: valid: got %v, want %v: %v", addresses, got, valid, diags)
		}
	}
}
