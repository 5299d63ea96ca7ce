package config

import (
	"fmt"
	"strings"
	"testing"
)

// A list of clients has a largest size, because each new client is compared with all of it.
func TestListsOfClientsAreBounded(t *testing.T) {
	for _, name := range []string{"allow", "deny"} {
		list := func(n int) string {
			var entries []string
			for i := range n {
				entries = append(entries, fmt.Sprintf("\"10.0.%d.%d\"", i/256, i%256))
			}
			return fmt.Sprintf("service \"web\" {\n listen = 9000\n %s = [%s]\n}", name, strings.Join(entries, ", "))
		}
		cfg := mustLoad(t, list(maxClientPrefixes), nil)
		if n := len(cfg.Services[0].Allow) + len(cfg.Services[0].Deny); n != maxClientPrefixes {
			t.Errorf("%s: got %d entries, want %d", name, n, maxClientPrefixes)
		}
		_, diags := loadText(list(maxClientPrefixes+1), nil)
		if got := textOf(diags); !strings.Contains(got, "Write at most 1024") {
			t.Errorf("%s with more entries: got %s", name, got)
		}
	}
}
