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

// queueSize is how many lines may wait to be written, and flushInterval how long they do at most.
const (
	queueSize     = 4096
	flushInterval = time.Second
	bufferSize    = 64 << 10               // bytes that are written at once
	fifoPatience  = 200 * time.Millisecond // for room in a FIFO
	stopGrace     = 2 * time.Second        // for what waits when it ends
)

// A writer writes a line for each connection and session. Those who tell it never wait: when the queue is full, because
// a disk is slow, lines are dropped and counted.
type writer struct {
	log    hclog.Logger
	own    Outputs // where /dev/stdout and /dev/stderr lead
	queue  chan proxy.AccessRecord
	sample atomic.Int64  // one in so many
	count  atomic.Uint64 // connections, for sampling
	*counts

	// The following belong to the goroutine of run.
	o       Options
	to      target // zero: it cannot be opened
	buf     []byte // whole lines, and at first what is left of one that was written in part
	stalled bool   // there was no room when buf was written last
	failing string // what is wrong, as the log knows; empty: nothing
	told    int64  // drops that the log knows of

	changes chan reconfiguration // to another file or format
	rotated chan struct{}        // has an element when the file is to be opened anew
	stopped chan struct{}        // closed when it is to end
	ended   chan struct{}        // closed when it has
}

// counts are of all access logs that there were.
type counts struct{ written, dropped atomic.Int64 }

// An reconfiguration is what an access log goes on with.
type reconfiguration struct {
	o  Options
	to target
}

// newWriter starts what writes to a target, which may be zero.
func newWriter(o Options, to target, own Outputs, counts *counts, log hclog.Logger) *writer {
	a := &writer{
		log: log, own: own, queue: make(chan proxy.AccessRecord, queueSize),
		counts: counts, told: counts.dropped.Load(),
		changes: make(chan reconfiguration, 1), rotated: make(chan struct{},
			1), stopped: make(chan struct{}), ended: make(chan struct{}),
	}
	a.use(o, to)
	go a.run()
	return a
}

// add takes a record, or drops it. It is what proxy.Options.Access wants.
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

// stop writes what waits, and closes the file. It does not wait long for a disk that takes nothing.
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

// use goes on with another target, or the first.
func (a *writer) use(o Options, to target) {
	a.o, a.to = o, to
	a.sample.Store(int64(o.Sample))
}

// finish writes what waits, and closes the file.
func (a *writer) finish() {
	for len(a.queue) > 0 {
		r := <-a.queue
		a.write(&r)
	}
	a.flush()
	a.close()
	a.tell()
}

// close gives the target up, and what could not be written to it.
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

// complain logs what is wrong, once.
func (a *writer) complain(err error) {
	if text := err.Error(); text != a.failing {
		a.failing = text
		a.log.Warn("access log cannot be written, trying on", "error", err)
	}
}

// write writes a line, soon.
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

// flush writes what waits in memory.
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

// tell logs how many lines were dropped since it was told last, unless it is known that none can be written.
func (a *writer) tell() {
	if n := a.dropped.Load(); n > a.told && a.failing == "" {
		a.log.Warn("access log lines dropped", "lines", n-a.told)
		a.told = n
	}
}
