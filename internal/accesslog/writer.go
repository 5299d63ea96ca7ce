package accesslog

import (
	"bytes"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/allowance"
	"github.com/lictor-proxy/lictor/proxy"
)

// Limits of an access log.
const (
	flushInterval = time.Second            // maximum time of a line in memory
	bufferSize    = 64 << 10               // maximum bytes written at once
	fifoPatience  = 200 * time.Millisecond // maximum wait for space in a FIFO
	stopGrace     = 2 * time.Second        // maximum wait for queued lines at the end
)

// A writer writes a line for each connection and session. Adding a record never blocks: if the backlog is full, for
// example because a disk is slow, the record is dropped and counted.
type writer struct {
	log     hclog.Logger
	own     Outputs // targets of /dev/stdout and /dev/stderr
	backlog *backlog
	sample  atomic.Int64  // one of this many is logged
	count   atomic.Uint64 // connections, for sampling
	*counts

	// Only the goroutine of run uses the following fields.
	o       Options
	format  formatter
	to      target               // zero while the target cannot be opened
	records []proxy.AccessRecord // the records formatted last, kept to reuse their memory
	line    []byte               // the line formatted last, kept to reuse its memory
	buf     []byte               // lines to write; the first may be the rest of a partly written line
	stalled bool                 // the last write of buf found no space
	trouble trouble
	told    int64                 // number of dropped lines that were logged
	tells   allowance.Allowance   // limits the log lines about dropped lines
	settled func(error)           // the method settle of this writer
	seen    int64                 // lines written by the last review
	failure atomic.Pointer[error] // error of this process's output since the last review; nil for none

	changes chan reconfiguration // changes of the target or the options
	rotated chan struct{}        // has an element when the file must be opened again
	stopped chan struct{}        // closed when run must end
	ended   chan struct{}        // closed when run has ended
}

// counts are the totals of all writers since the start.
type counts struct{ written, dropped atomic.Int64 }

// A reconfiguration is the new target and the new options of a writer.
type reconfiguration struct {
	o  Options
	to target
}

// newWriter starts a writer to a target. A zero target is opened later, when it can be opened.
func newWriter(o Options, to target, own Outputs, counts *counts, log hclog.Logger) *writer {
	a := &writer{
		log: log, own: own, backlog: newBacklog(), trouble: trouble{log: log},
		counts: counts, told: counts.dropped.Load(),
		changes: make(chan reconfiguration, 1), rotated: make(chan struct{}, 1),
		stopped: make(chan struct{}), ended: make(chan struct{}),
	}
	a.settled = a.settle
	a.use(o, to)
	go a.run()
	return a
}

// add queues a record, or drops it if too many wait. add never blocks.
func (a *writer) add(r proxy.AccessRecord) {
	always := r.Reason == proxy.ReasonUnserved || r.Reason == proxy.ReasonDenied || r.Reason == proxy.ReasonIntention
	if n := a.sample.Load(); !always && n > 1 && a.count.Add(1)%uint64(n) != 1 {
		return
	}
	if !a.backlog.add(&r) {
		a.dropped.Add(1)
	}
}

// stop writes the queued lines and closes the file. stop waits at most stopGrace.
func (a *writer) stop() {
	close(a.stopped)
	select {
	case <-a.ended:
	case <-time.After(stopGrace):
		a.log.Warn("access log not written to its end, its last lines may be lost")
	}
}

// change switches to another target or to other options once the queued lines are written. change does not wait for
// that. change allows one caller at a time.
func (a *writer) change(c reconfiguration) {
	select {
	case former := <-a.changes: // a former change that is now superseded
		former.to.close()
	default:
	}
	a.changes <- c
}

func (a *writer) run() {
	defer close(a.ended)
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	a.reopen(false) // logs if the target could not be opened
	for {
		select {
		case <-a.backlog.wake:
			a.drain()
		case <-tick.C:
			a.drain()
			a.flush()
			a.review()
			a.tell()
			a.reopen(false)
		case <-a.rotated:
			a.drain()
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

// use sets the target and the options.
func (a *writer) use(o Options, to target) {
	a.o, a.to, a.format = o, to, o.formatter()
	a.sample.Store(int64(o.Sample))
}

// finish writes the queued lines, and closes the target.
func (a *writer) finish() {
	a.drain()
	a.flush()
	a.review()
	a.close()
	a.tell()
}

// close closes the target. close counts unwritten lines as dropped.
func (a *writer) close() {
	a.dropped.Add(int64(bytes.Count(a.buf, newline)))
	a.buf, a.stalled = a.buf[:0], false
	a.to.close()
	a.to = target{}
}

// reopen opens the file again if it has been moved away, as logrotate does, or if it could not be opened before. With
// wanted, reopen opens the file in any case.
func (a *writer) reopen(wanted bool) {
	if !wanted && a.to.isAt(a.o.Path) {
		return
	}
	to, err := openTarget(a.o, a.own)
	if err != nil {
		if !wanted || errors.Is(err, errNobodyReads) {
			a.close() // the moved file may belong to another program now
		}
		a.trouble.began(err)
		return
	}
	if wanted && a.to.isAt(a.o.Path) && len(a.buf) > 0 { // the rest of a partly written line belongs in the open file
		to.close()
		return
	}
	a.close()
	a.use(a.o, to)
}

// drain formats the waiting records.
func (a *writer) drain() {
	a.records = a.backlog.take(a.records)
	for i := range a.records {
		a.write(&a.records[i])
	}
}

// write buffers the line of a record, or drops the record if there is no space.
func (a *writer) write(r *proxy.AccessRecord) {
	if !a.to.isOpen() {
		a.dropped.Add(1)
		return
	}
	a.line = a.format(a.line[:0], r)
	if a.to.own != nil { // line by line, like all output of this process
		if err := a.to.own.WriteFunc(a.line, a.settled); err != nil {
			a.dropped.Add(1)
		}
		return
	}
	if len(a.buf)+len(a.line) > bufferSize && !a.stalled {
		a.flush()
	}
	if !a.to.isOpen() || len(a.buf) > 0 && len(a.buf)+len(a.line) > bufferSize {
		a.dropped.Add(1)
		return
	}
	a.buf = append(a.buf, a.line...)
}

// settle counts a line that an output of this process has written, or could not write. The goroutine of that output
// calls settle.
func (a *writer) settle(err error) {
	if err == nil {
		a.written.Add(1)
	} else {
		a.dropped.Add(1)
		a.failure.Store(&err)
	}
}

// review logs whether lines to an output of this process failed or succeeded since the last review.
func (a *writer) review() {
	failure, written := a.failure.Swap(nil), a.written.Load()
	switch {
	case a.to.own == nil:
	case failure != nil:
		a.trouble.began(*failure)
	case written > a.seen:
		a.trouble.ended()
	}
	a.seen = written
}

var newline = []byte("\n")

// flush writes the buffered lines. If a disk is full, unwritten lines stay in the buffer. The rest of a partly written
// line stays too, because it must go into the same file.
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
		a.trouble.ended()
	case errors.Is(err, os.ErrDeadlineExceeded): // the reader of a FIFO is slow
		a.stalled = true
	case a.to.regular:
		a.stalled = true
		a.trouble.began(err)
	default: // close the target until the next reopen
		a.trouble.began(err)
		a.close()
	}
}

// tell logs how many lines were dropped since the last call. tell logs nothing while no line can be written.
func (a *writer) tell() {
	if n := a.dropped.Load(); n > a.told && !a.trouble.is() && a.tells.Take(time.Now(), linesAtOnce, lineEvery) {
		a.log.Warn("access log lines dropped", "lines", n-a.told)
		a.told = n
	}
}
