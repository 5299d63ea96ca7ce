package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/admin"
)

// answering returns a fakeLictor that answers every request of the commands.
func answering(t *testing.T) *fakeLictor {
	s := admin.Service{Name: "web", Set: admin.SetFresh, Endpoints: []admin.Endpoint{{State: admin.StateIn}}}
	return newFakeLictor(t, map[string]any{
		"GET /v1/status":                admin.Status{Ready: true, PID: 1, Version: "v1"},
		"GET /v1/services":              admin.ServicesAnswer{Services: []admin.Service{s}},
		"GET /v1/services/web":          s,
		"GET /v1/services/web/excluded": admin.ExcludedAnswer{},
		"GET /v1/connections":           admin.ConnectionsAnswer{},
		"GET /v1/mesh":                  meshAnswer(),
		"GET /v1/events":                admin.EventsAnswer{Events: []admin.Event{{Text: "x"}}},
		"POST /v1/reload":               admin.Reload{OK: true, Summary: "1 service\x1b added"},
		"POST /v1/upgrade":              admin.Upgrade{PID: 2, Version: "v2"},
	})
}

// A command whose output cannot be written fails and prints the reason.
func TestOutputThatIsLost(t *testing.T) {
	t.Parallel()
	f := answering(t)
	for _, args := range []string{
		"status", "status web", "status -json", "status -json web", "explain web", "explain -json web", "connections",
		"connections -json", "mesh status", "mesh status web", "mesh status -json", "mesh status -json web", "events",
		"events -json", "top -once -interval 100ms", "top -json", "reload",
		"reload -json", "upgrade", "upgrade -json",
	} {
		var said strings.Builder
		code := Main(append(strings.Fields(args), "-admin", f.address),
			console{in: strings.NewReader(""), out: fullDisk{}, err: &said})
		name, _, _ := strings.Cut(args, " ")
		if want := "lictor " + name + ": " + errDiskFull.Error() + "\n"; code != exitFailed || said.String() != want {
			t.Errorf("%s: got exit code %d and %q, want %d and %q", args, code, said.String(), exitFailed, want)
		}
	}
	for _, args := range []string{
		"version", "version -json", "fmt -", "fmt -check -", "-version", "-help", "status -help", "completion bash",
	} {
		var said strings.Builder
		code := Main(strings.Fields(args), console{in: strings.NewReader("a=1"), out: fullDisk{}, err: &said})
		if code != exitFailed || !strings.Contains(said.String(), errDiskFull.Error()) {
			t.Errorf("%s: got exit code %d and %q", args, code, said.String())
		}
	}
}

func TestReloadAndUpgradeSayWhatTheyDid(t *testing.T) {
	t.Parallel()
	f := answering(t)
	for args, want := range map[string]string{
		"reload": "reloaded: 1 service\ufffd added\n",
		"reload -json": `{
  "time": "0001-01-01T00:00:00Z",
  "ok": true,
  "summary": "1 service\u001b added"
}
`,
		"upgrade": "upgraded: process 2 (lictor v2) has replaced process 1 (lictor v1)\n",
		"upgrade -json": `{
  "pid": 2,
  "version": "v2"
}
`,
	} {
		out, said := lictor(t, exitOK, append(strings.Fields(args), "-admin", f.address)...)
		equal(t, out+said, want)
	}
	f.answers["POST /v1/reload"] = &admin.APIError{Code: 422, Text: "web.hcl:1:1: no"}
	f.answers["POST /v1/upgrade"] = &admin.APIError{Code: 422, Text: "it has ended"}
	for name, want := range map[string]string{"reload": "web.hcl:1:1: no", "upgrade": "it has ended"} {
		out, said := lictor(t, exitFailed, name, "-admin", f.address)
		equal(t, out+said, "lictor "+name+": "+want+"\n")
	}
}

// Input that cannot be read is an error, not an empty file.
func TestFormatOfInputThatCannotBeRead(t *testing.T) {
	t.Parallel()
	var out, said strings.Builder
	code := Main([]string{"fmt", "-"}, console{in: brokenPipe{}, out: &out, err: &said})
	if code != exitFailed || out.String() != "" || said.String() != "lictor fmt: broken\n" {
		t.Errorf("got exit code %d, %q, %q", code, out.String(), said.String())
	}
}

type brokenPipe struct{}

func (brokenPipe) Read(p []byte) (int, error) {
	return copy(p, "log_json = true\n"), errors.New("broken")
}

// fmt and validate fail if they cannot write their results.
func TestNamesAndFindingsThatAreLost(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "web.hcl")
	const valid = "service \"web\" {\n  listen = 9000\n}\n"
	for _, tt := range []struct{ args, src string }{
		{"fmt", "log_json=true"}, {"fmt -check", "log_json=true"}, {"validate -offline", valid},
		{"validate -offline -json", valid}, {"validate -json", "log_jsn = true\n"},
	} {
		if err := os.WriteFile(path, []byte(tt.src), 0o600); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		code := Main(append(strings.Fields(tt.args), path), console{out: fullDisk{}, err: &said})
		name, _, _ := strings.Cut(tt.args, " ")
		if want := "lictor " + name + ": " + errDiskFull.Error() + "\n"; code != exitFailed || said.String() != want {
			t.Errorf("%s: got exit code %d and %q, want %d and %q", tt.args, code, said.String(), exitFailed, want)
		}
	}
}

// explain fails if its output cannot be written, with events and without.
func TestExplanationThatIsLost(t *testing.T) {
	t.Parallel()
	s, _, events := explained()
	for _, events := range [][]admin.Event{nil, events.Events} {
		if err := writeExplanation(fullDisk{}, testNow, s, nil, nil, events); !errors.Is(err, errDiskFull) {
			t.Errorf("got %v, want %v", err, errDiskFull)
		}
	}
}
