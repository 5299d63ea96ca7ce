package daemon

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/asyncwriter"
)

// printGrace is how long a process that ends waits for those who read what it has still to print.
const printGrace = 2 * time.Second

// An Output is what a process prints through that serves: nothing in it waits for whoever reads stdout and stderr. A
// terminal that is stopped, a pipe that nobody reads and a hung journald would otherwise stop traffic and signals.
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

// notice is the line that says that lines were dropped. It looks like all others.
func (o *Output) notice(lines int64) []byte {
	var b bytes.Buffer
	NewLogger(&config.Config{LogJSON: o.json.Load()}, &b).
		Warn("log lines were dropped, whoever reads the log is too slow", "lines", lines)
	return b.Bytes()
}

// Close prints what is queued, unless nobody reads it.
func (o *Output) Close() {
	deadline := time.Now().Add(printGrace)
	for _, w := range []*asyncwriter.Writer{o.err, o.out} {
		_ = w.Close(time.Until(deadline)) // there is nobody left to tell
	}
}

// NewLogger returns the log of a process with configuration cfg, as lines to w.
func NewLogger(cfg *config.Config, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:       "lictor",
		Level:      hclog.LevelFromString(cfg.LogLevel),
		Output:     w,
		JSONFormat: cfg.LogJSON,
		TimeFormat: "2006-01-02T15:04:05.000Z0700",
	})
}
