//go:build unix

package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/hcl/v2"
	"go.uber.org/goleak"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// startConsul starts a real Consul, and returns its address and a client. Without a Consul program the test is skipped,
// or fails in CI.
func startConsul(t *testing.T) (string, *api.Client) {
	t.Helper()
	o := testconsul.Options{Binary: testconsul.Need(t), Dir: t.TempDir(), Node: "n"}
	agent, err := testconsul.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(agent.Kill)
	client, err := agent.Client()
	if err != nil {
		t.Fatal(err)
	}
	return agent.HTTP, client
}

func registerInstance(t *testing.T, client *api.Client, name, id, addr, status string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: name, Address: host, Port: n, Meta: map[string]string{"version": "2"},
		Check: &api.AgentServiceCheck{CheckID: id, TTL: "10m", Status: status},
	}); err != nil {
		t.Fatal(err)
	}
	testproc.Await(t, "the instance in the catalog", func() bool {
		all, _, err := client.Health().Service(name, "", false, nil)
		return err == nil && slices.ContainsFunc(all, func(e *api.ServiceEntry) bool { return e.Service.ID == id })
	})
}

// inConsul returns the text of a configuration with these services in Consul.
func inConsul(consul string, services ...string) string {
	text := fmt.Sprintf("consul {\n  address = %q\n}\n", consul)
	for _, name := range services {
		text += fmt.Sprintf("service %q {\n  listen = \"127.0.0.1:0\"\n}\n", name)
	}
	return text
}

func TestReloadFollowsConsul(t *testing.T) {
	consul, client := startConsul(t)
	registerInstance(t, client, "web", "a", instance(t, "a"), api.HealthPassing)
	registerInstance(t, client, "db", "b", instance(t, "b"), api.HealthPassing)
	s := serveConfiguration(t, inConsul(consul, "web"), nil)
	defer s.stop()
	s.awaitLog("ready: services=1 listeners=1")
	at := s.address("web")
	reaches(t, at, "a")

	// A service that a reload adds is served when the reload returns, through the same Consul client.
	before := s.consul.Load()
	s.mustReload(inConsul(consul, "web", "db"), "1 service added")
	reaches(t, s.address("db"), "b")
	if s.consul.Load() != before {
		t.Error("another client of Consul")
	}
	// If the options of Consul change, a new Consul client takes over.
	s.mustReload(strings.Replace(inConsul(consul, "web", "db"), "consul {", "consul {\n  max_watches = 9", 1),
		"changed: consul.max_watches")
	if s.consul.Load() == before {
		t.Error("the same client of Consul")
	}
	reaches(t, at, "a")
	reaches(t, s.address("db"), "b")
	s.mustReload(inConsul(consul, "web"), "1 service removed, changed: consul.max_watches")
	reaches(t, at, "a")
}

// A filter that Consul refuses makes a start and a reload fail, and CheckFilters finds it.
func TestRefusedFilter(t *testing.T) {
	consul, client := startConsul(t)
	registerInstance(t, client, "web", "a", instance(t, "a"), api.HealthPassing)
	with := func(filter string) string {
		return fmt.Sprintf("consul {\n  address = %q\n}\nservice \"web\" {\n  listen = \"127.0.0.1:0\"\n"+
			"  consul {\n    filter = %q\n  }\n}\n",
			consul, filter)
	}
	good, bad := with(`Service.Meta.version == "2"`), with(`Nonsense == "2"`)
	s := newServed(t, bad)
	err := s.tryStart(Options{}, nil)
	var refused *RefusedFiltersError
	if !errors.As(err, &refused) || len(refused.Diagnostics) != 1 || refused.Diagnostics[0].Subject.Start.Line != 7 {
		t.Errorf("start: got %v", err)
	}
	if err := testproc.Receive(t, "the end", s.end); !errors.As(err, &refused) {
		t.Errorf("run: got %v", err)
	}

	s = serveConfiguration(t, good, nil)
	defer s.stop()
	s.awaitLog("ready: services=1")
	if _, err := s.reload(bad); err == nil || !strings.Contains(err.Error(), "lictor.hcl:7: Filter refused by Consul") {
		t.Errorf("reload: got %v", err)
	}
	reaches(t, s.address("web"), "a")

	for text, want := range map[string]int{good: 0, bad: 1} {
		s.write(text)
		cfg, _ := s.load()
		if got, err := CheckFilters(t.Context(), cfg); err != nil || len(got) != want {
			t.Errorf("CheckFilters: got %v, %v, want %d", got, err, want)
		}
	}
	if got, err := CheckFilters(t.Context(), &config.Config{}); got != nil || err != nil {
		t.Errorf("without filters: got %v, %v", got, err)
	}
	s.write(strings.Replace(good, consul, "127.0.0.1:1", 1))
	cfg, _ := s.load()
	if got, err := CheckFilters(t.Context(), cfg); len(got) > 0 || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without Consul: got %v, %v", got, err)
	}
}

// Look reports what would serve, what would not and why, and problems with the addresses.
func TestLook(t *testing.T) {
	consul, client := startConsul(t)
	registerInstance(t, client, "web", "good", "127.0.0.1:1001", api.HealthPassing)
	registerInstance(t, client, "web", "bad", "127.0.0.1:1002", api.HealthCritical)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	registerInstance(t, client, "loop", "back", taken.Addr().String(), api.HealthPassing)
	preferring := "service \"web\" {\n  prefer = \"node\""
	text := strings.Replace(inConsul(consul, "web", "wbe"), `service "web" {`, preferring, 1) +
		fmt.Sprintf(`
service "loop" {
  listen = %q
}
service "elsewhere" {
  listen = "192.0.2.1:9"
  protocol = "udp"
  static {
    endpoints = ["127.0.0.1:9"]
  }
}
`, taken.Addr())
	cfg, diags := config.Parse("test.hcl", []byte(text), config.Options{Getenv: func(string) string { return "" }})
	if cfg == nil {
		t.Fatal(diags.Diagnostics)
	}
	all, problems := Look(t.Context(), cfg, nil)
	if len(all) != 2 {
		t.Fatalf("got %d sights", len(all))
	}
	lines := all[1].Describe()
	want := []string{`web: 1 of 2 instances (consul service "web"); prefers the same node (n)`,
		"  in   n/good  127.0.0.1:1001  n, near"}
	for _, line := range want {
		if !slices.Contains(lines, line) {
			t.Errorf("no %q in %q", line, lines)
		}
	}
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "  out  n/bad  status: ") }) {
		t.Errorf("the critical one is not in %q", lines)
	}
	if back := strings.Join(all[0].Describe(), "\n"); !strings.Contains(back, "  out  n/back  loop: ") {
		t.Errorf("the one that leads back is not in %q", back)
	}
	var summaries []string
	for _, p := range problems {
		summaries = append(summaries, p.Summary)
	}
	unknown := func(p *hcl.Diagnostic) bool { return p.Summary == "No instances" }
	const why = `Service "wbe": Consul knows no service of this name (consul service "wbe"). Did you mean "web"?`
	if i := slices.IndexFunc(problems, unknown); i < 0 || problems[i].Detail != why {
		t.Errorf("got %v, want that there is no service wbe", problems)
	}
	slices.Sort(summaries)
	wanted := []string{"Address cannot be used", "Address in use", "Endpoint left out", "No instances"}
	if !slices.Equal(summaries, wanted) {
		t.Errorf("got %q, want %q", summaries, wanted)
	}

	s := newServed(t, inConsul("127.0.0.1:1", "web"))
	cfg, _ = s.load()
	all, problems = Look(t.Context(), cfg, nil)
	if len(all) != 0 || len(problems) != 1 || problems[0].Summary != "Not answered by Consul" {
		t.Errorf("without Consul: got %v, %v", all, problems)
	}
}

// After a restart, saved endpoints are served at once, even while Consul is away.
func TestSavedEndpointsAreServedAtTheStart(t *testing.T) {
	consul, client := startConsul(t)
	registerInstance(t, client, "web", "a", instance(t, "a"), api.HealthPassing)
	state := fmt.Sprintf("state_dir = %q\n", filepath.Join(t.TempDir(), "state"))
	away := httptest.NewServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: consul}))
	address := away.Listener.Addr().String()
	first := serveConfiguration(t, state+inConsul(address, "web"), nil)
	first.awaitLog("ready: services=1")
	reaches(t, first.address("web"), "a")
	first.stop()
	away.CloseClientConnections()
	away.Close()

	for _, wait := range []bool{false, true} {
		s := newServed(t, state+inConsul(address, "web"))
		s.start(Options{AwaitEndpoints: wait}, nil)
		reaches(t, s.address("web"), "a")
		if !strings.Contains(s.log.String(), "saved endpoints are in use until consul answers: services=1") {
			t.Errorf("the log does not mention saved endpoints:\n%s", s.log)
		}
		if s.ready() {
			t.Error("ready before Consul has answered")
		}
		s.stop()
	}
}

// A start that fails leaves no listeners, no goroutines and no socket of the admin API.
func TestStartThatFailsLeavesNothing(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port, err := testproc.FreePort(func(port int) bool {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err == nil && l.Close() == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	dir := t.TempDir()
	log := func(path string) string { return fmt.Sprintf("access_log {\n  path = %q\n}\n", path) }
	first := log(filepath.Join(dir, "log")) + service("first", at, "127.0.0.1:1", "")
	for name, tt := range map[string]struct{ src, want string }{
		"address":    {first + service("second", taken.Addr().String(), "127.0.0.1:1", ""), "address already in use"},
		"admin":      {first + fmt.Sprintf("admin {\n  listen = %q\n}\n", taken.Addr()), "admin: "},
		"access log": {log(dir) + service("first", at, "127.0.0.1:1", ""), "access_log: "},
	} {
		s := newServed(t, tt.src)
		err := s.tryStart(Options{}, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		if err := testproc.Receive(t, "the end", s.end); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: run: got %v", name, err)
		}
		s.output.Close()
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = l.Close()
	}
	if err := goleak.Find(ignore); err != nil {
		t.Error(err)
	}
}

// A start that fails stops the checks of saved endpoints.
func TestStartThatFailsLeavesNoChecks(t *testing.T) {
	consul, client := startConsul(t)
	registerInstance(t, client, "web", "a", instance(t, "a"), api.HealthPassing)
	dir := t.TempDir()
	src := fmt.Sprintf("state_dir = %q\n", filepath.Join(dir, "state")) + inConsul(consul, "web")
	src = strings.TrimSuffix(src, "}\n") + "  check {\n    http = \"/\"\n  }\n}\n"
	first := serveConfiguration(t, src, nil)
	first.awaitLog("ready: services=1")
	first.stop()
	first.output.Close()

	s := newServed(t, src+fmt.Sprintf("access_log {\n  path = %q\n}\n", dir))
	ignore := goleak.IgnoreCurrent()
	if err := s.tryStart(Options{}, nil); err == nil || !strings.Contains(err.Error(), "access_log: ") {
		t.Errorf("got %v, want that the access log cannot be written", err)
	}
	_ = testproc.Receive(t, "the end", s.end)
	s.output.Close()
	if !strings.Contains(s.log.String(), "saved endpoints are in use") {
		t.Errorf("there were no saved endpoints:\n%s", s.log)
	}
	if err := goleak.Find(ignore); err != nil {
		t.Error(err)
	}
}

// When a daemon has ended, everything that it has started has ended.
func TestEndLeavesNothing(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	dir := t.TempDir()
	src := fmt.Sprintf("access_log {\n  path = %q\n}\n", filepath.Join(dir, "log")) +
		service("web", "127.0.0.1:0", "127.0.0.1:1", "")
	s := newServed(t, src)
	s.start(Options{Watch: NewWatch([]string{s.path})}, nil)
	at := s.address("web")
	socket := strings.TrimPrefix(s.admin.address(), "unix://")
	s.stop()
	s.output.Close()
	if _, err := net.DialTimeout("tcp", at, testproc.Patience); err == nil {
		t.Error("the service still listens")
	}
	if _, err := os.Stat(socket); err == nil {
		t.Errorf("%s still exists", socket)
	}
	if err := goleak.Find(ignore); err != nil {
		t.Error(err)
	}
}
