//go:build unix

package consul

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A FIFO without a writer, in place of a file, is an error. The client does not wait for a writer.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	const https = "https://127.0.0.1:1"
	testproc.Returns(t, "New", func() {
		for name, o := range map[string]Options{
			"token":                 {TokenFile: fifo},
			"authorities":           {Address: https, TLS: TLSOptions{CAFile: fifo}},
			"folder of authorities": {Address: https, TLS: TLSOptions{CAPath: dir}},
			"certificate":           {Address: https, TLS: TLSOptions{CertFile: fifo, KeyFile: fifo}},
		} {
			if _, err := New(o); err == nil || !strings.Contains(err.Error(), "is a FIFO, not a regular file") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}
