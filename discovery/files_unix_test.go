//go:build unix

package discovery

import (
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// If the file of saved sets is a FIFO without a writer, it is moved aside. The source does not wait for a writer.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, savedFile), 0o600); err != nil {
		t.Fatal(err)
	}
	testproc.Returns(t, "the store", func() {
		var log journal
		if sets := newStore(dir, log.logger(hclog.Info)).load(); sets.sets != nil {
			t.Errorf("saved state: got %v", sets)
		}
		log.wantOnce(t, "saved endpoints cannot be used", "is a FIFO, not a regular file")
	})
}
