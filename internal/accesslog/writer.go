package accesslog

import (
	"bytes"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/proxy"
)

// Bounds of an access log.
const (
	flushInterval = time.Second            // how long a line stays in memory
	bufferSize    = 64 << 10               // bytes that are written at once
	fifoPatience  = 200 * time.Millisecond // for room in a FIFO
	stopGrace     = 2 * time.Second        // for what is queued at the end
)

// A writer writes a line for each connection and session. Adding a record never waits: if the backlog is full, because
// a disk is slow, the record is dropped and counted.
type writer struct {
	log     hclog.Logger
	own     Outputs // where /dev/stdout and /dev/stderr lead
	backlog *backlog
	sample  atomic.Int64  // one in so many
	count   atomic.Uint64 // connections, for sampling
	*counts

	// The following belong to the goroutine of run.
	o       Options
	format  formatter
	to      target               // zero: it could not be opened
	records []proxy.AccessRecord // those that were formatted last, for the memory
	line    []byte               // likewise
	buf     []byte               // lines to write; the first may be the rest of one that was written in part
	stalled bool                 // there was no room when buf was written last
	trouble trouble
	told    int64                 // dropped lines that were logged
	tells   allowance             // of log lines about these
	settled func(error)           // settle of this writer
	seen    int64                 // lines written by the last review
	failure atomic.Pointer[error] // of an output of this process, since the last review; nil: none

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

// add queues a record, or drops it if too many wait. It never waits.
func (a *writer) add(r proxy.AccessRecord) {
	if n := a.sample.Load(); r.Reason != proxy.ReasonUnserved && n > 1 && a.count.Add(1)%uint64(n) != 1 {
		return
	}
	if !a.backlog.add(&r) {
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

// use makes to the target, and o the options.
func (a *writer) use(o Options, to target) {
	a.o, a.to, a.format = o, to, o.formatter()
	a.sample.Store(int64(o.Sample))
}

// finish writes what is queued, and closes the target.
func (a *writer) finish() {
	a.drain()
	a.flush()
	a.review()
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
		a.trouble.began(err)
		return
	}
	if wanted && a.to.isAt(a.o.Path) && len(a.buf) > 0 { // the rest of a line belongs there
		to.close()
		return
	}
	a.close()
	a.use(a.o, to)
}

// drain formats what waits.
func (a *writer) drain() {
	a.records = a.backlog.take(a.records)
	for i := range a.records {
		a.write(&a.records[i])
	}
}

// write buffers the line of a record, or drops it if there is no room.
func (a *writer) write(r *proxy.AccessRecord) {
	if !a.to.isOpen() {
		a.dropped.Add(1)
		return
	}
	a.line = a.format(a.line[:0], r)
	if a.to.own != nil { // line by line, as all that is printed there
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

// settle counts a line that an output of this process has written, or could not write. It is called by the goroutine of
// that output.
func (a *writer) settle(err error) {
	if err == nil {
		a.written.Add(1)
	} else {
		a.dropped.Add(1)
		a.failure.Store(&err)
	}
}

// review logs what became of the lines for an output of this process since the last review.
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

// flush writes the buffered lines. Those for which a disk has no room stay in the buffer, and so does the rest of one
// that was written in part: it must go there too.
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
	case errors.Is(err, os.ErrDeadlineExceeded): // a FIFO that is read slowly
		a.stalled = true
	case a.to.regular:
		a.stalled = true
		a.trouble.began(err)
	default: // given up until the next reopen
		a.trouble.began(err)
		a.close()
	}
}

// tell logs how many lines were dropped since the last time. It says nothing while no line can be written.
func (a *writer) tell() {
	if n := a.dropped.Load(); n > a.told && !a.trouble.is() && a.tells.take(time.Now()) {
		a.log.Warn("access log lines dropped", "lines", n-a.told)
		a.told = n
	}
}
