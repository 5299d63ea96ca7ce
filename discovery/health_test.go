package discovery

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A few megabytes of JSON can contain millions of items, each of which takes at least a hundred bytes once decoded.
func TestAnswerOfManyTinyItemsIsRefusedBeforeItFillsTheMemory(t *testing.T) {
	for name, body := range map[string]string{
		"instances":        "[" + strings.Repeat("{},", 4<<20) + "{}]",
		"nulls":            "[" + strings.Repeat("null,", 2<<20) + "null]",
		"words":            "[" + strings.Repeat(`"",`, 4<<20) + `""]`,
		"checks":           `[{"Checks":[` + strings.Repeat("{},", 4<<20) + `{}]}]`,
		"few, short":       "[" + strings.Repeat("{},", 60_000) + "{}]",
		"a prepared query": `{"Nodes":[` + strings.Repeat("{},", 4<<20) + "{}]}",
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			q := Query{Service: "web"}
			if strings.HasPrefix(name, "a prep") {
				q.Prepared = "p"
			}
			_, err := decode([]byte(body), &q, newParser(fieldRule{}))
			runtime.ReadMemStats(&after)
			if !errors.Is(err, consul.ErrTooManyElements) {
				t.Errorf("got %v, want it refused", err)
			}
			if took, most := after.TotalAlloc-before.TotalAlloc, uint64(8*len(body)+1<<20); took > most {
				t.Errorf("%d bytes took %d in memory, want at most %d", len(body), took, most)
			}
		})
	}
}
