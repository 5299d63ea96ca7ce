package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/config"
)

// A predictor of files offers those that fit, folders, and the folder that is complete already.
func TestCompletionOfFiles(t *testing.T) {
	t.Parallel()
	root := t.TempDir() + "/"
	for _, path := range []string{"web.hcl", "web.txt", "one/a.hcl", "two/b.hcl", "two/inner/c.hcl", "twofold/d.hcl"} {
		if err := os.MkdirAll(filepath.Dir(root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, root, path, "")
	}
	for last, want := range map[string]string{
		"":           "one/ two/ twofold/ web.hcl .",
		"w":          "web.hcl",
		"web.txt":    "",
		"o":          "one/a.hcl one/", // a single folder is opened
		"one/":       "one/a.hcl one/",
		"tw":         "two/ twofold/",
		"two":        "two/ twofold/",
		"two/i":      "two/inner/c.hcl two/inner/",
		"one/..":     "one/../one/ one/../two/ one/../twofold/ one/../web.hcl one/../",
		"one/../two": "one/../two/ one/../twofold/",
		"none/":      "",
	} {
		var got []string
		for _, path := range files("*.hcl")(typed{last: root + last}) {
			path = strings.TrimPrefix(path, root)
			if path == "" {
				path = "."
			}
			got = append(got, path)
		}
		if !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q: got %q, want %q", last, got, want)
		}
	}
}

// Each line of a shell has its completions.
func TestCompletionOfALine(t *testing.T) {
	t.Parallel()
	options := "-autocomplete-install -autocomplete-uninstall -help -version"
	tests := []struct{ line, point, want string }{
		{"lictor", "", ""},
		{"lictor v", "", "validate version"},
		{"lictor -", "", options},
		{"lictor nonsense v", "", "validate version"},
		{"lictor validate v", "8", "validate version"},
		{"lictor version", "99", "version"},
		{"lictor version -", "", "-help -json"},
		{"lictor version ", "", ""},
		{"lictor version\t--", "", ""},
		{"lictor mesh ", "", "explain status"},
		{"lictor mesh status web ", "", ""},
		{"lictor completion ", "", "bash zsh fish"},
		{"lictor run -log-level ", "", strings.Join(config.LogLevels(), " ")},
		{"lictor run -log-level=d", "", "debug"},
		{"lictor run x -log-level w", "", "warn"},
		{"lictor connections -n ", "", ""}, // a number
		{"sudo lictor version -j", "", "-json"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		code := console{out: &out, err: &out}.complete(beforeCursor(tt.line, tt.point))
		if got := strings.Join(strings.Fields(out.String()), " "); code != exitOK || got != tt.want {
			t.Errorf("%q at %q: got exit code %d and %q, want %q", tt.line, tt.point, code, got, tt.want)
		}
	}
}
