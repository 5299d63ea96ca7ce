package accesslog

import (
	"bytes"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/asyncwriter"
	"github.com/lictor-proxy/lictor/proxy"
)

// Bounds of an access log.
const (
	queueSize     = 4096                   // records
	flushInterval = time.Second            // how long a line stays in memory
	bufferSize    = 64 << 10               // bytes that are written at once
	fifoPatience  = 200 * time.Millisecond // for room in a FIFO
	stopGrace     = 2 * time.Second        // for what is queued at the end
)

// A writer writes a line for each connection and session. Adding a record never waits: if the queue is full, because a
// disk is slow, the record is dropped and counted.
type writer struct {
	log    hclog.Logger
	own    Outputs // where /dev/stdout and /dev/stderr lead
	queue  chan proxy.AccessRecord
	sample atomic.Int64  // one in so many
	count  atomic.Uint64 // connections, for sampling
	*counts

	// The following belong to the goroutine of run.
	o       Options
	to      target // zero: it could not be opened
	buf     []byte // lines to write; the first may be the rest of one that was written in part
	stalled bool   // there was no room when buf was written last
	failing string // the error that was logged last; empty: it can be written
	told    int64  // dropped lines that were logged

	changes chan reconfiguration // to another file or format
	rotated chan struct{}        // has an element when the file is to be opened anew
	stopped chan struct{}        // closed when it is to end
	ended   chan struct{}        // closed when it has
}

// counts are those of all writers since the start.
type counts struct{ written, dropped atomic.Int64 }

// A reconfiguration says what a writer goes on with.
type reconfiguration struct {
	o  Options
	to target
}

// newWriter starts a writer to a target. A zero target is opened later, when that is possible.
func newWriter(o Options, to target, own Outputs, counts *counts, log hclog.Logger) *writer {
	a := &writer{
		log: log, own: own, queue: make(chan proxy.AccessRecord, queueSize),
		counts: counts, told: counts.dropped.Load(),
		changes: make(chan reconfiguration, 1), rotated: make(chan struct{}, 1),
		stopped: make(chan struct{}), ended: make(chan struct{}),
	}
	a.use(o, to)
	go a.run()
	return a
}

// add queues a record, or drops it if the queue is full. It never waits.
func (a *writer) add(r proxy.AccessRecord) {
	if n := a.sample.Load(); r.Reason != proxy.ReasonUnserved && n > 1 && a.count.Add(1)%uint64(n) != 1 {
		return
	}
	select {
	case a.queue <- r:
	default:
		a.dropped.Add(1)
	}
}

// stop writes what is queued and closes the file. It waits at most stopGrace for that.
func (a *writer) stop() {
	close(a.stopped)
	select {
	case <-a.ended:
	case <-time.After(stopGrace):
		a.log.Warn("access log not written to its end")
	}
}

// change goes on with another file, or format, or sample, when what waits is written. It does not wait for that. One
// caller at a time.
func (a *writer) change(c reconfiguration) {
	select {
	case former := <-a.changes: // it did not come to that, and will not
		former.to.close()
	default:
	}
	a.changes <- c
}

func (a *writer) run() {
	defer close(a.ended)
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	a.reopen(false) // which says so if it could not be opened
	for {
		select {
		case r := <-a.queue:
			a.write(&r)
		case <-tick.C:
			a.flush()
			a.tell()
			a.reopen(false)
		case <-a.rotated:
			a.flush()
			a.reopen(true)
		case c := <-a.changes:
			a.finish()
			a.use(c.o, c.to)
			a.reopen(false)
		case <-a.stopped:
			a.finish()
			return
		}
	}
}

// use makes to the target, and o the options.
func (a *writer) use(o Options, to target) {
	a.o, a.to = o, to
	a.sample.Store(int64(o.Sample))
}

// finish writes what is queued, and closes the target.
func (a *writer) finish() {
	for len(a.queue) > 0 {
		r := <-a.queue
		a.write(&r)
	}
	a.flush()
	a.close()
	a.tell()
}

// close closes the target. Lines that could not be written to it count as dropped.
func (a *writer) close() {
	a.dropped.Add(int64(bytes.Count(a.buf, newline)))
	a.buf, a.stalled = a.buf[:0], false
	a.to.close()
	a.to = target{}
}

// reopen opens the file anew if it has been moved away, as logrotate does, if it could not be opened so far, or if that
// is wanted.
func (a *writer) reopen(wanted bool) {
	if !wanted && a.to.isAt(a.o.Path) {
		return
	}
	to, err := openTarget(a.o, a.own)
	if err != nil {
		if !wanted || errors.Is(err, errNobodyReads) {
			a.close() // the one that was moved away is somebody else's by now
		}
		a.complain(err)
		return
	}
	a.close()
	a.use(a.o, to)
}

// complain logs err, unless it was logged last.
func (a *writer) complain(err error) {
	if text := err.Error(); text != a.failing {
		a.failing = text
		a.log.Warn("access log cannot be written, trying on", "error", err)
	}
}

// write buffers the line of a record, or drops it if there is no room.
func (a *writer) write(r *proxy.AccessRecord) {
	if a.to.Writer == nil {
		a.dropped.Add(1)
		return
	}
	line := formatText(r)
	if a.o.JSON {
		line = formatJSON(r)
	}
	if len(a.buf)+len(line) > bufferSize && !a.stalled {
		a.flush()
	}
	if a.to.Writer == nil || len(a.buf) > 0 && len(a.buf)+len(line) > bufferSize {
		a.dropped.Add(1)
		return
	}
	if a.buf = append(a.buf, line...); a.to.file == nil {
		a.flush() // line by line, as all that is printed there
	}
}

var newline = []byte("\n")

// flush writes the buffered lines.
func (a *writer) flush() {
	if len(a.buf) == 0 {
		return
	}
	n, err := a.to.write(a.buf)
	a.written.Add(int64(bytes.Count(a.buf[:n], newline)))
	a.buf = append(a.buf[:0], a.buf[n:]...)
	switch {
	case err == nil:
		a.stalled = false
		if a.failing != "" {
			a.failing = ""
			a.log.Info("access log is written again")
		}
	case errors.Is(err, os.ErrDeadlineExceeded): // a FIFO that is read slowly; the rest of a line must go there too
		a.stalled = true
	case errors.Is(err, asyncwriter.ErrFull):
		a.dropped.Add(1)
		a.buf = a.buf[:0]
	default: // given up until the next reopen
		a.complain(err)
		a.close()
	}
}

// tell logs how many lines were dropped since the last time. It says nothing while no line can be written.
func (a *writer) tell() {
	if n := a.dropped.Load(); n > a.told && a.failing == "" {
		a.log.Warn("access log lines dropped", "lines", n-a.told)
		a.told = n
	}
}
