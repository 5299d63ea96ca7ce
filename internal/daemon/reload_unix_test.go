//go:build unix

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

func TestReloadAddsChangesAndRemovesServices(t *testing.T) {
	a, b := instance(t, "a"), instance(t, "b")
	same := service("same", "127.0.0.1:0", a, "")
	s := serveConfiguration(t, same+service("web", "127.0.0.1:0", a, "")+service("gone", "127.0.0.1:0", a, ""), nil)
	defer s.stop()
	sameAt, webAt, goneAt := s.address("same"), s.address("web"), s.address("gone")
	kept := reaches(t, sameAt, "a")
	reaches(t, webAt, "a")
	leaving := reaches(t, goneAt, "a")

	s.mustReload(same+service("web", "127.0.0.1:0", b, `connect_timeout = "7s"`)+service("new", "127.0.0.1:0", b, ""),
		"1 service added, 1 service changed, 1 service removed")
	if got := s.address("same"); got != sameAt {
		t.Errorf("the listener of the same service has moved from %s to %s", sameAt, got)
	}
	if got := s.address("web"); got != webAt {
		t.Errorf("the listener of the changed service has moved from %s to %s", webAt, got)
	}
	reaches(t, webAt, "b")
	reaches(t, s.address("new"), "b")
	if at := s.address("gone"); at != "" {
		t.Errorf("gone is still listened for at %s", at)
	}
	if _, err := net.DialTimeout("tcp", goneAt, testproc.Patience); err == nil {
		t.Error("the removed service accepts a client")
	}
	for _, c := range []*client{kept, leaving} { // neither connection is cut
		if _, err := fmt.Fprintln(c, "still here"); err != nil {
			t.Error(err)
		}
	}
	if got := len(s.cfg.Load().Services); got != 3 {
		t.Errorf("%d services are in force, want 3", got)
	}
}

// A reload that has waited for the endpoints of new services in vain names the services.
func TestReloadNamesServicesWithoutEndpoints(t *testing.T) {
	s := serveConfiguration(t, oneService, nil)
	defer s.stop()
	s.mustReload(oneService+inConsul("127.0.0.1:1", "b", "a"), "2 services added, changed: consul.address")
	s.awaitLog(`new services have no endpoints yet: number=2 services="a, b"`)
}

func TestReloadOfTheSameChangesNothing(t *testing.T) {
	src := service("web", "127.0.0.1:0", instance(t, "a"), "")
	s := serveConfiguration(t, src, nil)
	defer s.stop()
	before := s.cfg.Load()
	s.mustReload("# a remark\n"+src, "nothing to change")
	if s.cfg.Load() != before {
		t.Error("another configuration is in force")
	}
}

// If a reload fails for any reason, services, the admin API and the access log continue unchanged.
func TestReloadThatFailsChangesNothing(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	a, b := instance(t, "a"), instance(t, "b")
	log := func(path string) string { return fmt.Sprintf("access_log {\n  path = %q\n}\n", path) }
	first := log(filepath.Join(dir, "1")) + service("web", "127.0.0.1:0", a, "")
	s := serveConfiguration(t, first, nil)
	defer s.stop()
	at, api, before := s.address("web"), s.admin.listener, s.cfg.Load()

	other := service("web", "127.0.0.1:0", b, "")
	second := log(filepath.Join(dir, "2"))
	for _, tt := range []struct{ name, src, want string }{
		{"syntax", second + other + "service", "lictor.hcl:"},
		{"argument", second + other + "colour = 1\n", "colour"},
		{"address in use", second + other + service("new", taken.Addr().String(), b, ""),
			"something else listens there"},
		{"admin address in use", second + other + fmt.Sprintf("admin {\n  listen = %q\n}\n", taken.Addr()), "admin: "},
		{"access log", log(dir) + other, "access_log: "},
		{"consul", second + other +
			"consul {\n  address = \"https://127.0.0.1:1\"\n  tls {\n    ca_file = \"/nowhere\"\n  }\n}\n" +
			"service \"c\" {\n  listen = \"127.0.0.1:0\"\n}\n", "/nowhere"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.reload(tt.src)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if s.cfg.Load() != before || s.admin.listener != api || s.address("web") != at || s.address("new") != "" {
				t.Error("the configuration in force has changed")
			}
			reaches(t, at, "a")
			if _, err := os.Stat(filepath.Join(dir, "2")); err == nil {
				written, _, _ := s.access.Counts()
				text, _ := os.ReadFile(filepath.Join(dir, "2"))
				if len(text) > 0 {
					t.Errorf("the access log of a failed reload has %d bytes, %d lines were written",
						len(text), written)
				}
			}
		})
	}
	s.mustReload(second+other, "1 service changed, changed: access_log.path")
	reaches(t, at, "b")
}

func TestReloadMovesTheLogLevel(t *testing.T) {
	src := service("web", "127.0.0.1:0", "127.0.0.1:1", "")
	s := serveConfiguration(t, src, nil)
	defer s.stop()
	s.mustReload("log_level = \"debug\"\n"+src, "changed: log_level")
	if got := s.Daemon.log.GetLevel(); got != hclog.Debug {
		t.Errorf("got %v", got)
	}
}

// metrics { endpoints = false } leaves out the series of endpoints, from a reload on.
func TestReloadChangesTheMetrics(t *testing.T) {
	src := service("web", "127.0.0.1:0", "127.0.0.1:1", "")
	s := serveConfiguration(t, src, nil)
	defer s.stop()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(s.admin.address(), "unix://"))
		}}}
	shows := func(want bool) func() bool {
		return func() bool {
			answer, err := client.Get("http://lictor/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = answer.Body.Close() }()
			text, err := io.ReadAll(answer.Body)
			if err != nil || !strings.Contains(string(text), "lictor_services 1") {
				t.Fatalf("got %s, %v", text, err)
			}
			return strings.Contains(string(text), "lictor_endpoint_clients_active{") == want
		}
	}
	testproc.Await(t, "series of endpoints", shows(true))
	s.mustReload("metrics { endpoints = false }\n"+src, "changed: metrics.endpoints")
	testproc.Await(t, "no series of endpoints", shows(false))
	s.mustReload(src, "changed: metrics.endpoints")
	testproc.Await(t, "series of endpoints again", shows(true))
}

// Changes that a running process cannot apply stay pending until a restart. The reload, the status and the
// configuration in force show them, and all other changes are applied.
func TestReloadSaysWhatIsPending(t *testing.T) {
	b := instance(t, "b")
	s := serveConfiguration(t, service("web", "127.0.0.1:0", instance(t, "a"), ""), nil)
	defer s.stop()
	engine := "engine = \"portable\"\n" + service("web", "127.0.0.1:0", b, "")
	s.mustReload(engine, "1 service changed; pending until a restart or an upgrade: engine")
	s.awaitLog(`only after a restart or an upgrade: argument=engine in_force="\"auto\"" configured="\"portable\""`)
	reaches(t, s.address("web"), "b")
	s.mustReload(engine, "nothing to change; pending until a restart or an upgrade: engine")

	address, err := admin.ParseAddress(s.admin.address())
	if err != nil {
		t.Fatal(err)
	}
	client := admin.NewClient(address, "", admin.Chosen)
	defer client.Close()
	type shown struct {
		Engine  string
		Pending []admin.Pending
	}
	want := []admin.Pending{{Argument: "engine", InForce: `"auto"`, Configured: `"portable"`}}
	look := func() {
		t.Helper()
		var status, cfg shown
		if err := errors.Join(client.Get(t.Context(), "/v1/status", &status),
			client.Get(t.Context(), "/v1/config", &cfg)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(status.Pending, want) || !slices.Equal(cfg.Pending, want) || cfg.Engine != "auto" {
			t.Errorf("the status has %+v, the configuration %+v, want engine auto, and pending %+v", status, cfg, want)
		}
	}
	look()
	want = nil
	s.mustReload(service("web", "127.0.0.1:0", b, ""), "nothing to change")
	look()
}

func TestReloadMovesTheAdminAPI(t *testing.T) {
	src := service("web", "127.0.0.1:0", "127.0.0.1:1", "")
	socket := filepath.Join(t.TempDir(), "admin.sock")
	s := serveConfiguration(t, src, nil)
	defer s.stop()
	first := s.admin.address()
	for _, tt := range []struct{ block, want string }{
		{fmt.Sprintf("admin {\n  listen = \"unix://%s\"\n}\n", socket), "unix://" + socket},
		{"admin {\n  listen = \"off\"\n}\n", ""},
		{"", first},
	} {
		if _, err := s.reload(tt.block + src); err != nil {
			t.Fatalf("%s: %v", tt.block, err)
		}
		if got := s.admin.address(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.block, got, tt.want)
		}
	}
}

// A changed list of static endpoints is in force when the reload returns.
func TestReloadOfAListIsInForceAtOnce(t *testing.T) {
	a, b := service("web", "127.0.0.1:0", instance(t, "a"), ""), service("web", "127.0.0.1:0", instance(t, "b"), "")
	s := serveConfiguration(t, a, nil)
	defer s.stop()
	for range 20 {
		s.mustReload(b, "1 service changed")
		_ = reaches(t, s.address("web"), "b").Close()
		s.mustReload(a, "1 service changed")
		_ = reaches(t, s.address("web"), "a").Close()
	}
}

// A daemon that was started without files, as by lictor forward, refuses to reload.
func TestReloadWithoutFiles(t *testing.T) {
	s := serveConfiguration(t, oneService, func(s *served) { s.Daemon.load = errNothingToRead })
	defer s.stop()
	if _, err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "a reload has nothing to read") {
		t.Errorf("got %v", err)
	}
}

func TestReloadBySignal(t *testing.T) {
	b := instance(t, "b")
	s := serveConfiguration(t, service("web", "127.0.0.1:0", instance(t, "a"), ""), nil)
	defer s.stop()
	s.write(service("web", "127.0.0.1:0", b, ""))
	s.signals <- syscall.SIGHUP
	s.awaitLog(`reloaded: changes="1 service changed"`)
	reaches(t, s.address("web"), "b")
}

// A process that has been replaced refuses to reload.
func TestReplacedProcessDoesNotReload(t *testing.T) {
	s := serveConfiguration(t, oneService, func(s *served) {
		s.upgrades.End()
		s.upgrades = upgradedTo(t, upgrade.Process{PID: 7})
	})
	var replaced *upgrade.ReplacedError
	if _, err := s.Reload(t.Context()); !errors.As(err, &replaced) || replaced.By.PID != 7 {
		t.Errorf("got %v", err)
	}
	if err := testproc.Receive(t, "the end", s.end); err != nil { // the process has no connections
		t.Error(err)
	}
}

// upgradedTo returns the Upgrader of a process that another process has replaced.
func upgradedTo(t *testing.T, next upgrade.Process) *upgrade.Upgrader {
	t.Helper()
	u := upgrade.NewUpgrader(func(_ context.Context, commit func(upgrade.Process) error) error { return commit(next) })
	if err := u.Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestRefusedFiltersAreOneError(t *testing.T) {
	_, err := checkFilters(t.Context(), filtered("good", "lost"), checks{})
	if err == nil {
		t.Error("Consul did not answer, but the log does not mention it")
	}
	refused, _ := checkFilters(t.Context(), filtered("bad", "good", "bad"), checks{})
	text := (&RefusedFiltersError{refused}).Error()
	if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "test.hcl:1: Filter refused by Consul") {
		t.Errorf("got %q", text)
	}
}
