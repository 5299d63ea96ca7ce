package config

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/*/*.txt")

// TestBadConfigurations compares the messages for each testdata/bad/*.hcl with the *.txt beside it.
func TestBadConfigurations(t *testing.T) {
	compareMessages(t, "bad", func(t *testing.T, cfg *Config, diags Diagnostics) {
		if cfg != nil || !diags.HasErrors() {
			t.Error("the bad configuration was accepted")
		}
	})
}

// TestOldConfigurations compares the messages for each testdata/old/*.hcl with the *.txt beside it. These
// configurations are still accepted, with warnings.
func TestOldConfigurations(t *testing.T) {
	compareMessages(t, "old", func(t *testing.T, cfg *Config, diags Diagnostics) {
		if cfg == nil || diags.HasErrors() {
			t.Error("the old configuration is refused")
		}
		if got, want := len(diags.Warnings()), len(diags.Diagnostics); got != want {
			t.Errorf("got %d warnings, want %d", got, want)
		}
	})
}

// compareMessages loads each *.hcl in a folder of testdata and compares the messages with the *.txt beside it.
func compareMessages(t *testing.T, folder string, check func(*testing.T, *Config, Diagnostics)) {
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.hcl"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("got %v, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			cfg, diags := Load([]string{path}, Options{Getenv: func(string) string { return "" }})
			check(t, cfg, diags)
			golden := strings.TrimSuffix(path, ".hcl") + ".txt"
			got := strings.ReplaceAll(textOf(diags), string(filepath.Separator), "/")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("messages differ (-want +got); to accept them, run go test ./config -update:\n%s", diff)
			}
		})
	}
}

func TestJSONShape(t *testing.T) {
	_, diags := loadText("service \"web\" {\n  listen = \"*:9000\"\n}\n", nil)
	var b strings.Builder
	if err := diags.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	pos := func(column, offset float64) map[string]any {
		return map[string]any{"line": 2.0, "column": column, "byte": offset}
	}
	want := map[string]any{
		"format_version": "1.0", "valid": false, "error_count": 1.0, "warning_count": 0.0,
		"diagnostics": []any{map[string]any{
			"severity": "error", "summary": "Bad listen address",
			"detail": `"*:9000": to listen on all addresses of the host, write "0.0.0.0:9000" (IPv4) ` +
				`or "[::]:9000" (IPv6 and IPv4).`,
			"range": map[string]any{"filename": "test.hcl", "start": pos(12, 27), "end": pos(20, 35)},
			"snippet": map[string]any{
				"context": `service "web"`, "code": `  listen = "*:9000"`, "start_line": 2.0,
				"highlight_start_offset": 11.0, "highlight_end_offset": 19.0,
			},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("JSON differs (-want +got):\n%s", diff)
	}
}

// FuzzLoad checks that no text makes Load panic, and that every problem of a text points into the text.
func FuzzLoad(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*/*.hcl")
	for _, path := range append(paths, "../example.hcl") {
		src, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(src))
	}
	f.Fuzz(func(t *testing.T, src string) {
		src = strings.NewReplacer("_file", "_fil", "ca_path", "ca_pat").Replace(src) // no files are read
		cfg, diags := loadText(src, nil)
		if (cfg == nil) != diags.HasErrors() {
			t.Errorf("got configuration %v with diagnostics %v", cfg, diags.Diagnostics)
		}
		for _, d := range diags.Diagnostics {
			r := d.Subject
			if r == nil && d.Summary == "Not a configuration" &&
				(!utf8.ValidString(src) || strings.Contains(src, "\x00")) {
				continue // binary data has no lines to show
			}
			if r == nil || r.Filename != "test.hcl" || r.Start.Byte < 0 || r.Start.Byte > len(src) || r.Start.Line < 1 {
				t.Errorf("%q does not point into the file: %v", d.Summary, r)
			}
			if !utf8.ValidString(d.Detail) && utf8.ValidString(src) {
				t.Errorf("got detail %q", d.Detail)
			}
		}
		var b strings.Builder
		if diags.WriteText(&b, true) != nil || diags.WriteJSON(&b) != nil {
			t.Error("diagnostics cannot be written")
		}
	})
}
