//go:build unix

package discovery

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// A FIFO that nobody writes to, in place of any file, is an error. Nobody waits for it.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"fifo", savedFile} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	const https = "https://127.0.0.1:1"
	tests := []struct {
		name string
		o    ConsulOptions
	}{
		{"token", ConsulOptions{TokenFile: fifo}},
		{"authorities", ConsulOptions{Address: https, TLS: TLSOptions{CAFile: fifo}}},
		{"folder of authorities", ConsulOptions{Address: https, TLS: TLSOptions{CAPath: dir}}},
		{"certificate", ConsulOptions{Address: https, TLS: TLSOptions{CertFile: fifo, KeyFile: fifo}}},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, tt := range tests {
			if _, err := NewConsul(tt.o); err == nil || !strings.Contains(err.Error(), "is a FIFO, not a regular file") {
				t.Errorf("%s: got %v", tt.name, err)
			}
		}
		var log journal
		if sets := newStore(dir, log.logger(hclog.Info)).load(); sets != nil {
			t.Errorf("saved state: got %v", sets)
		}
		log.wantOnce(t, "saved endpoints cannot be used")
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it still waits after a minute")
	}
}
