package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
)

// planned returns a fakeLictor that runs the configuration in src.
func planned(t *testing.T, src string, status admin.Status) *fakeLictor {
	t.Helper()
	cfg, diags := config.Parse("old.hcl", []byte(src), config.Options{Getenv: func(string) string { return "" }})
	if cfg == nil {
		t.Fatal(diags.Diagnostics)
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if status.Version == "" {
		status.Version = newBuild().Version
	}
	return newFakeLictor(t, map[string]any{"GET /v1/status": status, "GET /v1/config": string(text)})
}

// plan runs lictor plan with the configuration in src and returns its output.
func plan(t *testing.T, code int, f *fakeLictor, src string) (stdout, stderr string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "new.hcl")
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	return lictor(t, code, "plan", "-config", path, "-admin", f.address)
}

const staticWeb = "service \"web\" {\n  listen = 9000\n  static {\n    endpoints = [\"10.0.0.1:80\"]\n  }\n}\n"

func TestPlanAgainstARunningLictor(t *testing.T) {
	t.Parallel()
	f := planned(t, staticWeb, admin.Status{})
	out, said := plan(t, exitOK, f, staticWeb)
	equal(t, out+said, "nothing would change\n")
	out, said = plan(t, exitOK, f, strings.ReplaceAll(staticWeb, "9000", "9001")+
		strings.NewReplacer("web", "api", "9000", "9002").Replace(staticWeb))
	equal(t, out+said, `+ service "api"
    + listen = ["127.0.0.1:9002"]
    + protocol = "tcp"
    + static.endpoints = ["10.0.0.1:80"]
~ service "web"
    ~ listen = ["127.0.0.1:9000"] -> ["127.0.0.1:9001"]

1 service added, 1 service changed
`)
}

// Options of the running lictor's command line stay in force after a reload. They are not shown as changes.
func TestPlanKnowsTheCommandLine(t *testing.T) {
	t.Parallel()
	const running = "log_level = \"debug\"\nlog_json = true\n"
	f := planned(t, running+staticWeb, admin.Status{CommandLine: []string{"log_level", "log_json"}})
	out, said := plan(t, exitOK, f, staticWeb)
	equal(t, out+said, "nothing would change\n")
	f = planned(t, running+staticWeb, admin.Status{CommandLine: []string{"log_json"}})
	out, _ = plan(t, exitOK, f, staticWeb)
	equal(t, out, "~ log_level = \"debug\" -> \"info\"\n\nchanged: log_level\n")
	f = planned(t, running+staticWeb, admin.Status{CommandLine: []string{"log_level"}})
	out, _ = plan(t, exitOK, f, staticWeb)
	if !strings.HasPrefix(out, "~ log_json = true -> false") {
		t.Errorf("got %s", out)
	}
}

// A running lictor does not show its secrets. They are not shown as changes, and not at all.
func TestPlanDoesNotGuessSecrets(t *testing.T) {
	t.Parallel()
	secret := func(token string) string {
		return "consul {\n  token = \"" + token + "\"\n}\nservice \"web\" {\n  listen = 9000\n}\n"
	}
	out, said := plan(t, exitOK, planned(t, secret("aaaaaaaa"), admin.Status{}), secret("bbbbbbbb"))
	equal(t, out+said, "nothing would change\n")
}

func TestPlanOfAnotherVersion(t *testing.T) {
	t.Parallel()
	f := planned(t, staticWeb, admin.Status{Version: "v0.0.1\x1b"})
	_, said := plan(t, exitOK, f, staticWeb)
	equal(t, said, "lictor plan: the running lictor has version v0.0.1\ufffd, this one "+newBuild().Version+
		": arguments that only one of them knows show as changes\n")

	f.answers["GET /v1/config"] = `{"services": 3}`
	out, said := plan(t, exitFailed, f, staticWeb)
	if out != "" || !strings.HasPrefix(said, "lictor plan: the configuration of the running lictor v0.0.1") ||
		!strings.Contains(said, "cannot be read: ") {
		t.Errorf("got %q, %q", out, said)
	}
	delete(f.answers, "GET /v1/config")
	_, said = plan(t, exitFailed, f, staticWeb)
	equal(t, said, "lictor plan: there is no /v1/config\n")
}

func TestPlanThatIsLost(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new.hcl")
	if err := os.WriteFile(path, []byte(staticWeb), 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	args := []string{"plan", "-config", path, "-against", path}
	code := Main(args, console{out: fullDisk{}, err: &said})
	if code != exitFailed || said.String() != "lictor plan: "+errDiskFull.Error()+"\n" {
		t.Errorf("got exit code %d, %q", code, said.String())
	}
}

func TestPlanSaysWhichServicesAreOnTheKernelPath(t *testing.T) {
	t.Parallel()
	f := planned(t, staticWeb, admin.Status{})
	out, said := plan(t, exitOK, f, "kernel_path = \"auto\"\n"+staticWeb+
		strings.NewReplacer("web", "dns", "9000", "9002\n  max_age = \"1h\"").Replace(staticWeb))
	const want = `
kernel path: 1 service (web)
not on the kernel path: 1 service (dns): the service has max_age, and the kernel path ends no connection
`
	if !strings.HasSuffix(out+said, want) {
		t.Errorf("got:\n%s%s\nwant at the end:\n%s", out, said, want)
	}
}
