package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/config"
)

// Logging never waits for the reader of the log. Lines in the log's format report how many lines were dropped: two of
// them, if the queue was full before the goroutine that writes it ran at all.
func TestOutputThatNobodyReads(t *testing.T) {
	number := regexp.MustCompile(`log lines were dropped.*lines"?[=:](\d+)`)
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
			reports, reported := 0, 0
			for _, line := range lines {
				if text := number.FindStringSubmatch(line); text != nil {
					reports++
					lost, err := strconv.Atoi(text[1])
					if err != nil {
						t.Fatal(err)
					}
					reported += lost
				}
			}
			if reported != int(dropped) || len(lines)-reports != n-int(dropped) {
				t.Errorf("got %d lines of %d, %d were dropped, and %d are reported",
					len(lines)-reports, n, dropped, reported)
			}
			last := lines[len(lines)-1]
			var line map[string]any
			if json.Unmarshal([]byte(last), &line) == nil != asJSON {
				t.Errorf("got %s", last)
			}
			if !number.MatchString(last) || !strings.Contains(last, "lictor") {
				t.Errorf("the last line is no report: %s", last)
			}
		})
	}
}
