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

// printGrace is how long Close waits for what is still queued to be read.
const printGrace = 2 * time.Second

// An Output is the stdout and stderr of a process that serves. Writing to it never waits. Otherwise a stopped terminal,
// a pipe that nobody reads or a hung journald would stop traffic and signals.
type Output struct {
	out, err *asyncwriter.Writer
	json     atomic.Bool // the log is JSON
}

// NewOutput puts queues in front of stdout and stderr. The caller has to call Close before the process ends.
func NewOutput(stdout, stderr io.Writer) *Output {
	o := &Output{}
	o.out = asyncwriter.New(stdout, asyncwriter.Options{})
	o.err = asyncwriter.New(stderr, asyncwriter.Options{Notice: o.notice})
	return o
}

// Out is stdout, through a queue.
func (o *Output) Out() io.Writer { return o.out }

// Err is stderr, through a queue.
func (o *Output) Err() io.Writer { return o.err }

// notice returns the line that says that lines were dropped, in the format of the log.
func (o *Output) notice(lines int64) []byte {
	var b bytes.Buffer
	NewLogger(&config.Config{LogJSON: o.json.Load()}, &b).
		Warn("log lines were dropped, whoever reads the log is too slow", "lines", lines)
	return b.Bytes()
}

// Close prints what is queued, and waits at most printGrace for that.
func (o *Output) Close() {
	deadline := time.Now().Add(printGrace)
	for _, w := range []*asyncwriter.Writer{o.err, o.out} {
		_ = w.Close(time.Until(deadline)) // there is nobody left to tell
	}
}

// NewLogger returns the log of a process with configuration cfg, as lines to w.
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
