package consul

import (
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// TestMain fails if a goroutine that the tests started is still running at the end.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logger returns a logger that writes to log.
func logger(log *testproc.Log) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info})
}

// wantOnce checks that each text is in the log exactly once.
func wantOnce(t *testing.T, log *testproc.Log, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if n := strings.Count(log.String(), text); n != 1 {
			t.Errorf("%d log lines with %q, want 1, in:\n%s", n, text, log)
		}
	}
}
