// Package asyncwriter keeps those who write a log from waiting for those who read it.
//
//	w := asyncwriter.New(os.Stderr, asyncwriter.Options{Notice: notice})
//	logger := hclog.New(&hclog.LoggerOptions{Output: w})
//	...
//	err := w.Close(2 * time.Second) // before the process ends
//
// A pipe, a socket or a disk that takes no more bytes blocks whoever writes to it. A [Writer] queues lines, up to a
// bound, and writes them from one goroutine. Lines that find no room are dropped and counted, and when there is room
// again one line says how many they were.
//
// A crash loses what is still queued: the Go runtime writes the reason of a crash past the queue.
package asyncwriter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// DefaultLimit is a few seconds of a busy log.
const DefaultLimit = 4 << 20

// Errors of Write: that it comes after Close, and that there was no room.
var (
	ErrClosed = errors.New("writer closed")
	ErrFull   = errors.New("too much waits to be written")
)

// Options are what a Writer needs beside its destination.
type Options struct {
	// Limit is how many bytes may wait to be written. One call of Write may exceed it if nothing else waits.
	// Zero means DefaultLimit.
	Limit int

	// Notice returns the line that says that n lines were dropped. It is called by the goroutine that writes.
	// Nil means that nothing is said.
	Notice func(n int64) []byte
}

// A Writer is an io.Writer that never waits. What is passed to one call of Write is one line to it: it is written by
// one call too, or dropped. Lines are written in their order. The methods may be called concurrently.
type Writer struct {
	out    io.Writer
	limit  int
	notice func(int64) []byte
	wake   chan struct{} // has an element when there is something to do
	done   chan struct{} // closed when the goroutine has ended
	rest   fragment      // of the goroutine

	mu       sync.Mutex    // guards the following
	queue    batch         // what waits
	inHand   int           // bytes that are being written
	full     bool          // lines are dropped until the goroutine takes the queue
	dropped  int64         // in all
	unsaid   int64         // of those, what no line has told of
	accepted uint64        // lines so far
	written  uint64        // of those, how many were dealt with, in vain or not
	err      error         // of the last line that was dealt with; nil: it was written
	progress chan struct{} // closed when written changes; nil: nobody waits for that
	closed   bool
}

// A batch is lines one after the other.
type batch struct {
	text  []byte
	lines []queued
}

// A queued line waits to be written.
type queued struct {
	end  int         // of it in the text of its batch
	done func(error) // see WriteFunc
}

// A fragment is the rest of a line of which the first part was written, when there was no room for more. It has to be
// written before anything else.
type fragment struct {
	text []byte // empty: there is none
	done func(error)
	err  error // why it was not written
}

// maxSpare is how many bytes of memory are kept for the next batch. A burst takes more for as long as it lasts.
const maxSpare = 64 << 10

// New returns a Writer that writes to out. The caller has to call Close, which ends its goroutine.
func New(out io.Writer, o Options) *Writer {
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	w := &Writer{out: out, limit: o.Limit, notice: o.Notice, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Unwrap returns the destination.
func (w *Writer) Unwrap() io.Writer { return w.out }

// Write queues a copy of line, or drops it and returns ErrFull. It does not wait.
func (w *Writer) Write(line []byte) (int, error) {
	if err := w.WriteFunc(line, nil); err != nil {
		return 0, err
	}
	return len(line), nil
}

// WriteFunc is like Write. If it returns nil, it calls done once: with nil after the line was written, or with the
// error if it could not be. The goroutine that writes calls done, which must not block and must not call the Writer.
// A nil done is not called.
func (w *Writer) WriteFunc(line []byte, done func(error)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	waiting := len(w.queue.text) + w.inHand
	switch {
	case w.closed:
		return ErrClosed
	case w.full, waiting > 0 && waiting+len(line) > w.limit:
		w.full = true // shorter lines are dropped too, so that the notice stands where the gap is
		w.dropped++
		w.unsaid++
		return ErrFull
	}
	w.queue.text = append(w.queue.text, line...)
	w.queue.lines = append(w.queue.lines, queued{len(w.queue.text), done})
	w.accepted++
	w.signal()
	return nil
}

// Dropped returns how many lines were dropped so far, those included that could not be written.
func (w *Writer) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Flush waits until the lines that are queued now have been written. It returns an error if the last of them could not
// be, or ctx.Err() if ctx ends before.
func (w *Writer) Flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for target := w.accepted; w.written < target; {
		if w.progress == nil {
			w.progress = make(chan struct{})
		}
		progress := w.progress
		w.mu.Unlock()
		select {
		case <-progress:
		case <-ctx.Done():
			w.mu.Lock()
			return ctx.Err()
		}
		w.mu.Lock()
	}
	return w.err
}

// Close takes no more lines, and waits until those that are queued have been written, but not longer than patience. Its
// error is Flush's. If the destination still blocks then, the goroutine goes on waiting for it.
func (w *Writer) Close(patience time.Duration) error {
	w.mu.Lock()
	w.closed = true
	w.signal()
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := w.Flush(ctx)
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	return err
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run writes what is queued until Close.
func (w *Writer) run() {
	defer close(w.done)
	var b batch
	for {
		unsaid, closed := w.take(&b)
		if len(b.lines) == 0 && unsaid == 0 {
			if closed {
				w.giveUp()
				return
			}
			<-w.wake
			continue
		}
		start := 0
		for _, line := range b.lines {
			w.settle(line.end-start, line.done, w.put(b.text[start:line.end], line.done))
			start = line.end
		}
		if unsaid > 0 {
			w.say(unsaid)
		}
	}
}

// take exchanges b, which has been written, for what is queued. It returns how many lines were dropped behind that.
func (w *Writer) take(b *batch) (unsaid int64, closed bool) {
	if cap(b.text) > maxSpare {
		*b = batch{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	*b, w.queue = w.queue, batch{text: b.text[:0], lines: b.lines[:0]}
	w.inHand, w.full = len(b.text), false
	if w.err == nil || len(b.lines) > 0 { // else it would fail again, and again
		unsaid, w.unsaid = w.unsaid, 0
	}
	return unsaid, w.closed
}

// errTorn is the error of put for a line that is written in part. The rest is kept.
var errTorn = errors.New("written in part")

// put writes a line behind the rest of an earlier one, if there is any.
func (w *Writer) put(line []byte, done func(error)) error {
	if f := &w.rest; len(f.text) > 0 {
		n, err := w.out.Write(f.text)
		if f.text = f.text[n:]; err != nil {
			f.err = err
			return err
		}
		call(f.done, nil)
		*f = fragment{}
	}
	n, err := w.out.Write(line)
	if err != nil && 0 < n && n < len(line) {
		w.rest = fragment{slices.Clone(line[n:]), done, err}
		return fmt.Errorf("%w: %w", errTorn, err)
	}
	return err
}

// giveUp drops the rest of a line.
func (w *Writer) giveUp() {
	if len(w.rest.text) == 0 {
		return
	}
	w.mu.Lock()
	w.dropped++
	w.mu.Unlock()
	call(w.rest.done, w.rest.err)
}

func call(done func(error), err error) {
	if done != nil {
		done(err)
	}
}

// settle notes that a line of n bytes was written, or could not be because of err.
func (w *Writer) settle(n int, done func(error), err error) {
	torn := errors.Is(err, errTorn)
	if !torn {
		call(done, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inHand -= n
	w.written++
	if w.err = err; err != nil && !torn {
		w.dropped++
		w.unsaid++
	}
	if w.progress != nil {
		close(w.progress)
		w.progress = nil
	}
}

// say writes that n lines were dropped, and those too that were dropped since, if none is queued that comes before
// them.
func (w *Writer) say(n int64) {
	if w.notice == nil {
		return
	}
	w.mu.Lock()
	if len(w.queue.lines) == 0 {
		n += w.unsaid
		w.unsaid, w.full = 0, false
	}
	w.mu.Unlock()
	err := w.put(w.notice(n), nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && !errors.Is(err, errTorn) {
		w.err = err
		w.unsaid += n
	}
}
