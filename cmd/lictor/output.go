package main

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

// An output is what a process prints through that serves: nothing in it waits for whoever reads stdout and stderr. A
// terminal that is stopped, a pipe that nobody reads and a hung journald would otherwise stop traffic and signals.
type output struct {
	out, err *asyncwriter.Writer
	json     atomic.Bool // the log is JSON
}

// newOutput puts queues in front of c's outputs. The caller has to call close before the process ends.
func newOutput(c console) *output {
	o := &output{}
	o.out = asyncwriter.New(c.out, asyncwriter.Options{})
	o.err = asyncwriter.New(c.err, asyncwriter.Options{Notice: o.notice})
	return o
}

// console is one that prints through o, and reads what c does.
func (o *output) console(c console) console { return console{in: c.in, out: o.out, err: o.err} }

// notice is the line that says that lines were dropped. It looks like all others.
func (o *output) notice(lines int64) []byte {
	var b bytes.Buffer
	newLogger(&config.Config{LogJSON: o.json.Load()}, &b).
		Warn("log lines were dropped, whoever reads the log is too slow", "lines", lines)
	return b.Bytes()
}

// close prints what is queued, unless nobody reads it.
func (o *output) close() {
	deadline := time.Now().Add(printGrace)
	for _, w := range []*asyncwriter.Writer{o.err, o.out} {
		_ = w.Close(time.Until(deadline)) // there is nobody left to tell
	}
}

// newLogger returns the log of a process with configuration cfg, as lines to w.
func newLogger(cfg *config.Config, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:       "lictor",
		Level:      hclog.LevelFromString(cfg.LogLevel),
		Output:     w,
		JSONFormat: cfg.LogJSON,
		TimeFormat: "2006-01-02T15:04:05.000Z0700",
	})
}
