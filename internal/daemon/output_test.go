package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/config"
)

// Logging never waits for the reader of the log. A line in the log's format reports how many lines were dropped.
func TestOutputThatNobodyReads(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		t.Run(fmt.Sprintf("json %v", asJSON), func(t *testing.T) {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			o := NewOutput(write, write)
			o.json.Store(asJSON)
			log := NewLogger(&config.Config{LogLevel: "debug", LogJSON: asJSON}, o.Err())
			const n = 40_000
			for i := range n { // far more than a pipe and the queue hold
				log.Debug("connected", "number", i, "padding", strings.Repeat("x", 60))
			}
			dropped := o.err.Dropped()
			if dropped == 0 {
				t.Error("nothing was dropped: logging waited, or the queue has no limit")
			}
			var got bytes.Buffer
			done := make(chan error, 1)
			go func() {
				_, err := got.ReadFrom(read)
				done <- err
			}()
			if err := o.err.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			o.Close()
			_ = write.Close()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(got.String()), "\n")
			if len(lines) != n-int(dropped)+1 {
				t.Errorf("got %d lines of %d, and %d were dropped", len(lines)-1, n, dropped)
			}
			last := lines[len(lines)-1]
			var line map[string]any
			if json.Unmarshal([]byte(last), &line) == nil != asJSON {
				t.Errorf("got %s", last)
			}
			for _, want := range []string{"log lines were dropped", "lines", fmt.Sprint(dropped), "lictor"} {
				if !strings.Contains(last, want) {
					t.Errorf("no %q in %s", want, last)
				}
			}
		})
	}
}
