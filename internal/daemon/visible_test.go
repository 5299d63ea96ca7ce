package daemon

import (
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/config"
)

// Text from Consul in the log is safe to show in a terminal.
func TestLogIsVisible(t *testing.T) {
	for _, asJSON := range []bool{true, false} {
		var b strings.Builder
		NewLogger(&config.Config{LogLevel: "info", LogJSON: asJSON}, &b).Info("x", "said", "a\u009b2J\u202e\u200b")
		if !strings.Contains(b.String(), `a\u009b2J\u202e\u200b`) {
			t.Errorf("JSON %v: got %q, want the characters escaped", asJSON, b.String())
		}
	}
}
