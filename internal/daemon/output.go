package daemon

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/asyncwriter"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// printGrace limits how long Close waits until the queued output is written.
const printGrace = 2 * time.Second

// An Output is the stdout and stderr of a process that serves. A write to it never blocks. If writes could block, a
// stopped terminal, a pipe without a reader or a hung journald would block traffic and signals.
type Output struct {
	out, err *asyncwriter.Writer
	json     atomic.Bool // the log is JSON
}

// NewOutput returns an Output that queues writes to stdout and stderr. The caller must call Close before the process
// ends.
func NewOutput(stdout, stderr io.Writer) *Output {
	o := &Output{}
	o.out = asyncwriter.New(stdout, asyncwriter.Options{})
	o.err = asyncwriter.New(stderr, asyncwriter.Options{Notice: o.notice})
	return o
}

// Out returns a writer to stdout that never blocks.
func (o *Output) Out() io.Writer { return o.out }

// Err returns a writer to stderr that never blocks.
func (o *Output) Err() io.Writer { return o.err }

// notice returns a log line which says that log lines were dropped.
func (o *Output) notice(lines int64) []byte {
	var b bytes.Buffer
	NewLogger(&config.Config{LogJSON: o.json.Load()}, &b).
		Warn("log lines were dropped, because the reader of the log is too slow", "lines", lines)
	return b.Bytes()
}

// Close writes the queued output, and waits at most printGrace for that.
func (o *Output) Close() {
	deadline := time.Now().Add(printGrace)
	for _, w := range []*asyncwriter.Writer{o.err, o.out} {
		_ = w.Close(time.Until(deadline)) // an error has no receiver left
	}
}

// NewLogger returns the logger for configuration cfg. NewLogger writes lines to w.
func NewLogger(cfg *config.Config, w io.Writer) hclog.Logger {
	if cfg.LogJSON {
		w = visible.NewJSONWriter(w)
	}
	return hclog.New(&hclog.LoggerOptions{
		Name:       "lictor",
		Level:      hclog.LevelFromString(cfg.LogLevel),
		Output:     w,
		JSONFormat: cfg.LogJSON,
		TimeFormat: "2006-01-02T15:04:05.000Z0700",
	})
}
