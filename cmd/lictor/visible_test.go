package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// hostile is a text with which a server could forge a line, clear the screen, set its title, and reverse or hide text.
const hostile = "x\nFORGED\x1b[2J\x1b]0;t\a\u009b2J\u202e\u200b\u2066"

// fill sets each text in v to hostile, and each list to one element.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i))
			}
		}
	}
}

func filled[T any]() (v T) {
	fill(reflect.ValueOf(&v).Elem())
	return v
}

// harmless fails if the output of a command has hidden characters, or a line that the server forged.
func harmless(t *testing.T, args []string, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); visible.Text(line) != line || strings.HasPrefix(line, "FORGED") {
			t.Errorf("%q: it prints %q", args, line)
		}
	}
}

// No command prints control or hidden characters of a server's answer: not in text, JSON or errors.
func TestCommandsPrintOnlyWhatShows(t *testing.T) {
	t.Parallel()
	s, page := filled[admin.Service](), filled[admin.ConnectionsAnswer]()
	page.Next = "" // the last one
	good := newFakeLictor(t, map[string]any{
		"GET /v1/status":                filled[admin.Status](),
		"GET /v1/services":              admin.ServicesAnswer{Services: []admin.Service{s}},
		"GET /v1/services/web":          s,
		"GET /v1/services/web/excluded": filled[admin.ExcludedAnswer](),
		"GET /v1/connections":           page,
		"GET /v1/mesh":                  filled[admin.MeshAnswer](),
		"GET /v1/events":                filled[admin.EventsAnswer](),
		"POST /v1/reload":               filled[admin.Reload](),
		"POST /v1/upgrade":              filled[admin.Upgrade](),
	})
	bad := newFakeLictor(t, map[string]any{
		"GET /v1/status": &admin.APIError{Code: http.StatusForbidden, Text: strings.ReplaceAll(hostile, "\n", " ")},
	})
	for _, command := range []string{"status", "status web", "explain web", "connections", "events", "mesh status",
		"reload", "upgrade", "top -once"} {
		for _, f := range []*fakeLictor{good, bad} {
			for _, option := range []string{"", " -json"} {
				line := command + option
				if line == "top -once -json" {
					line = "top -json" // -once cannot be used with -json
				}
				args := append(strings.Fields(line), "-admin", f.address)
				var out, said strings.Builder
				code := Main(args, console{in: strings.NewReader(""), out: &out, err: &said})
				if f == good && out.Len() == 0 || f == bad && (code != exitFailed || said.Len() == 0) {
					t.Errorf("%q: got exit code %d:\n%s%s", args, code, &out, &said)
				}
				harmless(t, args, out.String())
				harmless(t, args, said.String())
				if option != "" && f == good && !json.Valid([]byte(strings.SplitAfter(out.String(), "\n}\n")[0])) {
					t.Errorf("%q: not valid JSON: %s", args, &out)
				}
			}
		}
	}
}

// validate makes foreign characters visible, of Consul's answers and of the file.
func TestValidatePrintsOnlyWhatShows(t *testing.T) {
	t.Parallel()
	consul := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(hostile))
	}))
	t.Cleanup(consul.Close)
	path := filepath.Join(t.TempDir(), "lictor.hcl")
	write := func(more string) {
		text := "consul {\n  address = \"" + consul.URL + "\"\n}\nservice \"web\" {\n  listen = 0\n  consul {\n" +
			"    filter = \"Service.ID == `a`\"\n  }\n}\n" + more
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, more := range []string{"", "log_level = \"\u009b2J\u202e\" # \u200b\n"} {
		write(more)
		for _, options := range []string{"-live", "-live -json", "-json", ""} {
			args := append(strings.Fields("validate "+options), path)
			var out, said strings.Builder
			Main(args, console{in: strings.NewReader(""), out: &out, err: &said})
			if out.Len()+said.Len() == 0 {
				t.Errorf("%q: it prints nothing", args)
			}
			harmless(t, args, out.String())
			harmless(t, args, said.String())
		}
	}
}
