package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// configured returns the configuration in text, which must be valid.
func configured(t *testing.T, text string) *Config {
	t.Helper()
	cfg, diags := Parse("test.hcl", []byte(text), Options{Getenv: func(string) string { return "" }})
	if cfg == nil {
		t.Fatalf("%v in:\n%s", diags.Diagnostics, text)
	}
	return cfg
}

func TestCompare(t *testing.T) {
	const web = "service \"web\" {\n  listen = 9000\n}\n"
	for _, tt := range []struct {
		name, old, next string
		summary, diff   string
	}{
		{"nothing", web, "# a remark\n" + web, "nothing to change", ""},
		{
			"top level", web, "log_level = \"debug\"\n" + web, "changed: log_level",
			"~ log_level = \"info\" -> \"debug\"\n",
		},
		{
			"arguments that need a restart", web, "engine = \"portable\"\n" + web, "changed: engine",
			"~ engine = \"auto\" -> \"portable\"  # needs a restart or an upgrade\n",
		},
		{
			"an argument", web,
			"service \"web\" {\n  listen = 9000\n  connect_timeout = \"9s\"\n}\n", "1 service changed",
			"~ service \"web\"\n    ~ connect_timeout = \"1s\" -> \"9s\"\n",
		},
		{
			"a list", web, "service \"web\" {\n  listen = [9000, 9001]\n}\n", "1 service changed",
			"~ service \"web\"\n    ~ listen = [\"127.0.0.1:9000\"] -> [\"127.0.0.1:9000\", \"127.0.0.1:9001\"]\n",
		},
		{
			"prefixes", web, "service \"web\" {\n  listen = 9000\n  allow = [\"10.0.0.0/8\", \"::1\"]\n}\n",
			"1 service changed", "~ service \"web\"\n    + allow = [\"10.0.0.0/8\", \"::1/128\"]\n",
		},
		{
			"the order of a list", "service \"web\" {\n  listen = [9000, 9001]\n}\n",
			"service \"web\" {\n  listen = [9001, 9000]\n}\n", "1 service changed",
			"~ service \"web\"\n" +
				"    ~ listen = [\"127.0.0.1:9000\", \"127.0.0.1:9001\"] -> [\"127.0.0.1:9001\", \"127.0.0.1:9000\"]\n",
		},
		{
			"added, removed and changed", web + "service \"old\" {\n  listen = 1\n}\n",
			"service \"web\" {\n  listen = 9001\n}\n" +
				"service \"a$${b}\" {\n  listen = 2\n  max_sessions = 7\n  protocol = \"udp\"\n}\n",
			"1 service added, 1 service changed, 1 service removed",
			"",
		},
		{
			"an added block", web, "access_log {\n  path = \"/x\"\n}\n" + web,
			"changed: access_log.path, access_log.json, access_log.sample",
			"+ access_log.path = \"/x\"\n+ access_log.json = true\n+ access_log.sample = 1\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old, next := configured(t, tt.old), configured(t, tt.next)
			c := Compare(old, next)
			if got := c.Summary(); got != tt.summary {
				t.Errorf("summary: got %q, want %q", got, tt.summary)
			}
			if c.Empty() != (tt.summary == "nothing to change") {
				t.Errorf("empty: got %v", c.Empty())
			}
			var b strings.Builder
			if err := c.Write(&b); err != nil {
				t.Fatal(err)
			}
			if tt.diff != "" && b.String() != tt.diff {
				t.Errorf("got:\n%swant:\n%s", b.String(), tt.diff)
			}
			if !Compare(next, next).Empty() {
				t.Error("a configuration differs from itself")
			}
		})
	}
}

// A block that is new is shown by its arguments, with those that have their default.
func TestCompareOfANewBlock(t *testing.T) {
	const web = "service \"web\" {\n  listen = 9000\n"
	c := Compare(configured(t, web+"}\n"), configured(t, web+"  accept_proxy { from = [\"10.0.0.1\"] }\n}\n"))
	var b strings.Builder
	if err := c.Write(&b); err != nil {
		t.Fatal(err)
	}
	const want = "~ service \"web\"\n    + accept_proxy.from = [\"10.0.0.1/32\"]\n    + accept_proxy.timeout = \"3s\"\n"
	if b.String() != want {
		t.Errorf("got:\n%swant:\n%s", b.String(), want)
	}
}

func TestCompareOfMesh(t *testing.T) {
	const web, mesh = "service \"web\" {\n  listen = 9000\n", "  mesh { as = %q }\n"
	top := "log_level = \"info\"\nservice \"other\" {\n  listen = 1\n}\n"
	plain, one, two := web+"}\n", web+fmt.Sprintf(mesh, "one")+"}\n", web+fmt.Sprintf(mesh, "two")+"}\n"
	for _, tt := range []struct{ name, old, next, want string }{
		{"added", plain, one, "~ service \"web\"\n    + mesh.as = \"one\"\n    + failover_on = \"health\"\n" +
			"    + failover_below = 1\n    + failback_hold = \"30s\"\n    - consul.statuses = [\"passing\"]\n"},
		{"changed", one, two, "~ service \"web\"\n    ~ mesh.as = \"one\" -> \"two\"\n"},
		{"removed", one, plain, "~ service \"web\"\n    + consul.statuses = [\"passing\"]\n    - mesh.as = \"one\"\n" +
			"    - failover_on = \"health\"\n    - failover_below = 1\n    - failback_hold = \"30s\"\n"},
		{"new service", "", one, "+ service \"web\"\n    + listen = [\"127.0.0.1:9000\"]\n" +
			"    + protocol = \"tcp\"\n    + mesh.as = \"one\"\n"},
	} {
		var b strings.Builder
		if err := Compare(configured(t, top+tt.old), configured(t, top+tt.next)).Write(&b); err != nil {
			t.Fatal(err)
		}
		if b.String() != tt.want {
			t.Errorf("%s: got:\n%swant:\n%s", tt.name, b.String(), tt.want)
		}
	}
}

// Sources for failover are shown as they are written. Their place in the file is not a change.
func TestCompareOfFailover(t *testing.T) {
	const two = `service "web" {
  listen = 9000
  consul {
    filter = "Service.Meta.v == 1"
  }
  consul {
    datacenter = "dc2"
    filter     = "Service.Meta.v == 1"
  }
}
`
	one := configured(t, "service \"web\" {\n  listen = 9000\n  consul {\n    "+
		"filter = \"Service.Meta.v == 1\"\n  }\n}\n")
	before := configured(t, two)
	var b strings.Builder
	if err := Compare(one, before).Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `~ service "web"
    + failover = [{service = "web", filter = "Service.Meta.v == 1", datacenter = "dc2", ` +
		`statuses = ["passing"], max_drop = 50, drop_hold = "10s", ` +
		`hold_max.critical = "1m0s", hold_max.forgotten = "1m0s"}]
    + failover_on = "health"
    + failover_below = 1
    + failback_hold = "30s"
`
	if b.String() != want {
		t.Errorf("got:\n%swant:\n%s", b.String(), want)
	}
	if c := Compare(before, configured(t, "# a remark\n\n"+two)); !c.Empty() {
		t.Errorf("a comment above the service is a change: %s", c.Summary())
	}
}

// For an added service Compare shows the arguments that were chosen, not all defaults.
func TestCompareShowsWhatWasChosen(t *testing.T) {
	next := configured(t, "service \"dns\" {\n  listen = 53\n  protocol = \"udp\"\n  max_sessions = 7\n}\n")
	var b strings.Builder
	if err := Compare(&Config{}, next).Write(&b); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(b.String(), "+ service \"dns\"\n")
	want := "    + protocol = \"udp\"\n    + listen = [\"127.0.0.1:53\"]\n"
	for line := range strings.Lines(want + "    ~ max_sessions = ") {
		if !strings.Contains(got, strings.TrimSuffix(line, "\n")) {
			t.Errorf("no %q in:\n%s", line, got)
		}
	}
	if strings.Contains(got, "idle_timeout") || strings.Contains(got, "balance") {
		t.Errorf("defaults are listed:\n%s", got)
	}
}

// Compare does not show secrets, but shows that a secret has changed.
func TestCompareHidesSecrets(t *testing.T) {
	const web = "service \"web\" {\n  listen = 9000\n}\n"
	token := func(s string) *Config { return configured(t, "consul {\n  token = \""+s+"\"\n}\n"+web) }
	c := Compare(token("first-secret"), token("second-secret"))
	var b strings.Builder
	if err := c.Write(&b); err != nil {
		t.Fatal(err)
	}
	if c.Empty() || !strings.Contains(b.String(), "~ consul.token = (secret) -> another (secret)") {
		t.Errorf("got:\n%s", b.String())
	}
	if strings.Contains(b.String(), "first") || strings.Contains(b.String(), "second") {
		t.Errorf("a secret shows:\n%s", b.String())
	}
	if c := Compare(configured(t, web), token("first-secret")); c.Empty() {
		t.Error("a new token is not reported as a change")
	}
	check := func(send string) *Config {
		return configured(t, "service \"dns\" {\n  listen = 9000\n  protocol = \"udp\"\n  check {\n"+
			"    send = \""+send+"\"\n    expect = \"ok\"\n  }\n}\n")
	}
	b.Reset()
	if err := Compare(check("first-secret"), check("second-secret")).Write(&b); err != nil {
		t.Fatal(err)
	}
	if want := "~ service \"dns\"\n    ~ check.send = (secret) -> another (secret)\n"; b.String() != want {
		t.Errorf("got:\n%swant:\n%s", b.String(), want)
	}
	shown, err := json.Marshal(check("first-secret"))
	if err != nil || strings.Contains(string(shown), "first") || !strings.Contains(string(shown), `"send":"(secret)"`) {
		t.Errorf("got %s, %v", shown, err)
	}
}

func TestPendingChanges(t *testing.T) {
	const web = "service \"web\" {\n  listen = 9000\n}\n"
	running := configured(t, web)
	next := configured(t, "engine = \"portable\"\nlog_json = true\nstate_dir = \"/x\"\nlog_level = \"warn\"\n"+web)
	want := []PendingChange{
		{"log_json", "false", "true"}, {"engine", `"auto"`, `"portable"`}, {"state_dir", "", `"/x"`},
	}
	if got := Compare(running, next).Pending(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	after := Reloaded(running, next)
	if c := Compare(running, after); len(c.Pending()) != 0 || c.Summary() != "changed: log_level" {
		t.Errorf("Reloaded changed arguments that need a restart: %s", c.Summary())
	}
	if got := Compare(after, next).Pending(); !slices.Equal(got, want) {
		t.Errorf("after a reload got %q, want %q", got, want)
	}
}

// Err has a line with its place for each error, and none for warnings.
func TestErrOfDiagnostics(t *testing.T) {
	cfg, diags := Parse("test.hcl", []byte("colour = 1\nservice \"web\" {\n}\n"), Options{})
	if cfg != nil {
		t.Fatal("the configuration was accepted")
	}
	lines := strings.Split(diags.Err().Error(), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "test.hcl:1: ") || !strings.HasPrefix(lines[1], "test.hcl:2: ") {
		t.Errorf("got %q", lines)
	}
	if err := (Diagnostics{}).Err(); err != nil {
		t.Errorf("of nothing: got %v", err)
	}
}

func TestQuoteIsReadBack(t *testing.T) {
	for _, text := range []string{"", "web", `a"b`, "${x}", "%{if}", "a\nb", "ü"} {
		cfg, diags := Parse("",
			[]byte("service \"web\" {\n  listen = 1\n"+
				"  consul {\n    service = \"web\"\n    tags = ["+Quote(text+"x")+"]\n  }\n}\n"), Options{})
		if cfg == nil {
			t.Errorf("%q: %v", text, diags.Diagnostics)
		} else if got := cfg.Services[0].Consul.Tags[0]; got != text+"x" {
			t.Errorf("got %q, want %q", got, text+"x")
		}
	}
}

func TestPluralAndListeners(t *testing.T) {
	for n, want := range map[int]string{0: "0 services", 1: "1 service", 2: "2 services"} {
		if got := Plural(n, "service"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := configured(t,
		"service \"a\" {\n  listen = [1, 2]\n}\nservice \"b\" {\n  listen = 3\n}\n").Listeners(); got != 3 {
		t.Errorf("got %d listeners, want 3", got)
	}
}
