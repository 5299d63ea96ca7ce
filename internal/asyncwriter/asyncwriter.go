// Package asyncwriter lets a program write to a log without waiting for the log's reader.
//
//	w := asyncwriter.New(os.Stderr, asyncwriter.Options{Notice: notice})
//	logger := hclog.New(&hclog.LoggerOptions{Output: w})
//	...
//	err := w.Close(2 * time.Second) // before the process ends
//
// A pipe, a socket or a disk that accepts no more bytes blocks the writing goroutine. A [Writer] queues lines, up to a
// limit, and writes them in a goroutine of its own. A Writer drops lines that exceed the limit and counts them. Once
// the queue has space again, one line reports how many lines were dropped.
//
// A crash loses the queued lines. The reason of a crash is not lost, because the Go runtime writes it without the
// queue.
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

// DefaultLimit is the default of Options.Limit, in bytes. DefaultLimit holds a few seconds of a busy log.
const DefaultLimit = 4 << 20

// Errors of Write: the Writer is closed, or its queue is full.
var (
	ErrClosed = errors.New("writer closed")
	ErrFull   = errors.New("the queue is full")
)

// Options configure a Writer.
type Options struct {
	// Limit is the maximum number of queued bytes. One line may exceed it if the queue is empty. Zero means
	// DefaultLimit.
	Limit int

	// Notice returns the line which reports that n lines were dropped. The writing goroutine calls it. If Notice is
	// nil, nothing is reported.
	Notice func(n int64) []byte
}

// A Writer is an io.Writer that never blocks. Each call of Write passes one line, which is later written with one call
// or dropped. Lines keep their order. The methods are safe for concurrent use.
type Writer struct {
	out    io.Writer
	limit  int
	notice func(int64) []byte
	wake   chan struct{} // has an element when the goroutine has work
	done   chan struct{} // closed when the goroutine has ended
	rest   fragment      // used by the goroutine only

	mu       sync.Mutex    // guards the fields below
	queue    batch         // lines that wait
	inHand   int           // bytes of the batch that is being written
	full     bool          // lines are dropped until the goroutine takes the queue
	dropped  int64         // dropped lines in all
	unsaid   int64         // dropped lines that no notice has reported
	accepted uint64        // lines accepted so far
	written  uint64        // accepted lines that were written or failed
	err      error         // error of the last such line; nil if it was written
	progress chan struct{} // closed when written changes; nil if no call of Flush waits
	closed   bool
}

// A batch is a sequence of lines.
type batch struct {
	text  []byte
	lines []queued
}

// A queued line waits to be written.
type queued struct {
	end  int         // end of the line in the batch's text
	done func(error) // see WriteFunc
}

// A fragment is the rest of a line that was only partly written. The fragment must be written before any other line.
type fragment struct {
	text []byte // empty if there is no fragment
	done func(error)
	err  error // why the fragment was not written
}

// maxSpare is how much memory is kept for the next batch, in bytes. A burst may take more while it lasts.
const maxSpare = 64 << 10

// New returns a Writer that writes to out. The caller must call Close, which ends the Writer's goroutine.
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

// Write queues a copy of line, or drops it and returns ErrFull. Write does not block.
func (w *Writer) Write(line []byte) (int, error) {
	if err := w.WriteFunc(line, nil); err != nil {
		return 0, err
	}
	return len(line), nil
}

// WriteFunc is like Write, and reports the result to done. If WriteFunc returns nil, done is called once: with nil
// after the line was written, or with the error. The writing goroutine calls done, which must not block and must not
// call the Writer. A nil done is not called.
func (w *Writer) WriteFunc(line []byte, done func(error)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	waiting := len(w.queue.text) + w.inHand
	switch {
	case w.closed:
		return ErrClosed
	case w.full, waiting > 0 && waiting+len(line) > w.limit:
		w.full = true // drop shorter lines too, so that the notice is where the gap is
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

// Dropped returns how many lines were dropped so far, including lines that could not be written.
func (w *Writer) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Flush waits until the lines that are queued now are written. Flush returns an error if the last of them could not be
// written. Flush returns ctx.Err() if ctx ends first.
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

// Close refuses further lines, and waits for at most patience until the queued lines are written. Close returns the
// error of Flush. If the destination still blocks then, the goroutine keeps waiting for the destination.
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

// run writes the queued lines until Close.
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

// take exchanges b, which has been written, for the queue. take returns how many lines were dropped after those in the
// queue.
func (w *Writer) take(b *batch) (unsaid int64, closed bool) {
	if cap(b.text) > maxSpare {
		*b = batch{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	*b, w.queue = w.queue, batch{text: b.text[:0], lines: b.lines[:0]}
	w.inHand, w.full = len(b.text), false
	if w.err == nil || len(b.lines) > 0 { // otherwise the notice would fail again and again
		unsaid, w.unsaid = w.unsaid, 0
	}
	return unsaid, w.closed
}

// errTorn is the error of put for a line that was partly written. The rest is kept as a fragment.
var errTorn = errors.New("written in part")

// put writes the rest of an earlier line, if there is one, and then the line.
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

// giveUp drops the fragment, if there is one.
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

// settle records that a line of n bytes was written, or failed with err.
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

// say writes the notice that n lines were dropped. If the queue is empty, the notice also includes lines that were
// dropped since.
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
