package asyncwriter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A gate is a destination that blocks while it is shut.
type gate struct {
	mu    sync.Mutex // held while the gate is shut
	got   bytes.Buffer
	calls int
	fails error
}

func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls++
	if g.fails != nil {
		return 0, g.fails
	}
	return g.got.Write(b)
}

func (g *gate) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got.String()
}

func notice(n int64) []byte { return fmt.Appendf(nil, "%d lines were dropped\n", n) }

const patience = time.Minute // limit for waits that succeed in time

func mustClose(t *testing.T, w *Writer) {
	t.Helper()
	if err := w.Close(patience); err != nil {
		t.Errorf("close: %v", err)
	}
}

func mustFlush(t *testing.T, w *Writer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.Flush(ctx); err != nil {
		t.Errorf("flush: %v", err)
	}
}

func TestLinesAreWrittenInOrderAndEachByOneCall(t *testing.T) {
	var g gate
	w := New(&g, Options{Notice: notice})
	var want strings.Builder
	for i := range 10_000 {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		if n, err := io.WriteString(w, line); n != len(line) || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	mustFlush(t, w)
	if got := g.String(); got != want.String() || g.calls != 10_000 || w.Dropped() != 0 {
		t.Errorf("got %d bytes in %d calls, and %d dropped", len(got), g.calls, w.Dropped())
	}
	mustClose(t, w)
	if _, err := io.WriteString(w, "late"); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: got %v", err)
	}
}

// Write does not block while the destination blocks. Dropped lines are counted, and the notice follows the lines before
// the gap.
func TestBlockedDestination(t *testing.T) {
	var g gate
	w := New(&g, Options{Limit: 100, Notice: notice})
	g.mu.Lock()
	for i := range 1000 {
		fmt.Fprintf(w, "line %d\n", i)
	}
	dropped := w.Dropped()
	if dropped < 900 {
		t.Errorf("got %d dropped, the queue is larger than its limit", dropped)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("flush: got %v", err)
	}
	g.mu.Unlock()
	mustFlush(t, w)
	io.WriteString(w, "and on\n")
	mustClose(t, w)
	var want strings.Builder
	for i := range 1000 - int(dropped) {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	want.WriteString(string(notice(dropped)) + "and on\n")
	if got := g.String(); got != want.String() {
		t.Errorf("got:\n%s\nwant:\n%s", got, &want)
	}
}

// The notice is written without waiting for another line.
func TestNoticeComesByItself(t *testing.T) {
	var g gate
	w := New(&g, Options{Limit: 10, Notice: notice})
	g.mu.Lock()
	for range 10 {
		io.WriteString(w, "0123456789")
	}
	g.mu.Unlock()
	mustClose(t, w)
	if got := g.String(); !strings.HasSuffix(got, "lines were dropped\n") || strings.Count(got, "dropped") != 1 {
		t.Errorf("got %q", got)
	}
}

// A line that is longer than the limit is written if the queue is empty, because it may be the last line of a process.
func TestLongLine(t *testing.T) {
	var g gate
	w := New(&g, Options{Limit: 10})
	io.WriteString(w, "this is longer than ten bytes\n")
	mustFlush(t, w)
	g.mu.Lock()
	io.WriteString(w, "short")
	io.WriteString(w, "this is longer than ten bytes too\n")
	g.mu.Unlock()
	mustClose(t, w)
	if got, want := g.String(), "this is longer than ten bytes\nshort"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Lines that cannot be written, as on a full disk, are counted. The notice is written when the destination works again.
func TestFailingDestination(t *testing.T) {
	var g gate
	w := New(&g, Options{Notice: notice})
	g.mu.Lock()
	g.fails = errors.New("disk full")
	g.mu.Unlock()
	for range 3 {
		io.WriteString(w, "lost\n")
	}
	if err := w.Flush(t.Context()); err == nil || err.Error() != "disk full" {
		t.Errorf("flush: got %v", err)
	}
	g.mu.Lock()
	g.fails = nil
	g.mu.Unlock()
	io.WriteString(w, "on\n")
	mustFlush(t, w)
	mustClose(t, w)
	if got, want := g.String(), "on\n3 lines were dropped\n"; got != want || w.Dropped() != 3 {
		t.Errorf("got %q and %d dropped, want %q", got, w.Dropped(), want)
	}
}

// Close does not wait for ever for a blocked destination.
func TestCloseGivesUp(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := New(write, Options{})
	for range 1000 {
		w.Write(make([]byte, 1000)) // more than a pipe holds
	}
	if err := w.Close(time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_ = read.Close() // so that the goroutine ends
	select {
	case <-w.done:
	case <-time.After(patience):
		t.Error("the goroutine did not end although its destination failed")
	}
	_ = write.Close()
}

func TestManyWriters(t *testing.T) {
	var g gate
	w := New(&g, Options{})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for k := range 500 {
				fmt.Fprintf(w, "%d %d\n", i, k)
			}
		})
	}
	all.Wait()
	mustClose(t, w)
	next := map[string]int{}
	for line := range strings.Lines(g.String()) {
		var k int
		var who string
		if _, err := fmt.Sscanf(line, "%s %d", &who, &k); err != nil || k != next[who] {
			t.Fatalf("got %q, want number %d", line, next[who])
		}
		next[who]++
	}
	if len(next) != 8 || next["0"] != 500 {
		t.Errorf("got %v", next)
	}
}

func BenchmarkWrite(b *testing.B) {
	w := New(io.Discard, Options{})
	line := []byte(strings.Repeat("x", 150) + "\n")
	b.ReportAllocs()
	for range b.N {
		w.Write(line)
	}
	_ = w.Close(patience)
}

// A disk accepts bytes until it is full.
type disk struct {
	mu   sync.Mutex
	got  bytes.Buffer
	room int
}

func (d *disk) Write(b []byte) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n = min(len(b), d.room); n < len(b) {
		err = errors.New("disk full")
	}
	d.room -= n
	d.got.Write(b[:n])
	return n, err
}

func (d *disk) grow(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room += n
}

// A partly written line is completed before any other line, and counts as written only then.
func TestTornLineIsCompleted(t *testing.T) {
	for _, tt := range []struct {
		name          string
		grow          int
		want          string
		written, lost int
	}{
		{"later", 100, "one\ntwo\nfour\n1 lines were dropped\n", 3, 1},
		{"never", 0, "one\nt", 1, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &disk{room: 5}
			w := New(d, Options{Notice: notice})
			written, lost := 0, 0
			for _, line := range []string{"one\n", "two\n", "three\n", "four\n"} {
				if line == "four\n" {
					d.grow(tt.grow)
				}
				if err := w.WriteFunc([]byte(line), func(err error) {
					if err == nil {
						written++
					} else {
						lost++
					}
				}); err != nil {
					t.Fatal(err)
				}
				_ = w.Flush(t.Context())
			}
			_ = w.Close(patience)
			if got := d.got.String(); got != tt.want || written != tt.written || lost != tt.lost ||
				w.Dropped() != int64(tt.lost) {
				t.Errorf("got %q, %d written and %d lost, %d dropped, want %q, %d and %d", got, written, lost,
					w.Dropped(), tt.want, tt.written, tt.lost)
			}
		})
	}
}
