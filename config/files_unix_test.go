//go:build unix

package config

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A FIFO without a writer and a device without an end are reported wherever a file is expected, and are not read.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "x.hcl")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	const web = `service "web" { listen = 9000 }`
	tests := []struct {
		name, src string
		paths     []string
		want      string // error with the name of the file
	}{
		{name: "a FIFO", paths: []string{fifo}, want: "is a FIFO, not a regular file"},
		{name: "a FIFO in a folder", paths: []string{dir}, want: "is a FIFO, not a regular file"},
		{name: "a device", paths: []string{"/dev/zero"}, want: "is a device, not a regular file"},
		{name: "token of Consul", src: `consul { token_file = "FILE" }`, want: "token_file: "},
		{name: "token of the API", src: `admin { token_file = "FILE" }`, want: "token_file: "},
		{name: "authorities", src: "consul {\n address = \"https://a:1\"\n tls {\n ca_file = \"FILE\"\n }\n}",
			want: "ca_file: "},
		{name: "certificate", src: "consul {\n address = \"https://a:1\"\n tls {\n cert_file = \"FILE\"\n key_file " +
			"= \"FILE\"\n }\n}", want: "key_file: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			testproc.Returns(t, "the call", func() {
				var diags Diagnostics
				if tt.paths != nil {
					_, diags = Load(tt.paths, Options{})
				} else {
					_, diags = loadText(strings.ReplaceAll(tt.src, "FILE", fifo)+"\n"+web, nil)
				}
				if got := textOf(diags); !strings.Contains(got, tt.want) ||
					!strings.Contains(got, "not a regular file") {
					t.Errorf("got:\n%swant %q", got, tt.want)
				}
			})
		})
	}
}
