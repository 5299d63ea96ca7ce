//go:build unix

package accesslog

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/asyncwriter"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// inTime is far longer than anything in these tests takes.
const inTime = time.Minute

func makeFIFO(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A FIFO may be without a reader, at the start and later. The log mentions that once each time.
func TestAccessLogIntoAFIFO(t *testing.T) {
	o := Options{Path: makeFIFO(t), Sample: 1}
	to, err := openTarget(o, Outputs{})
	if !errors.Is(err, errNobodyReads) || to.isOpen() {
		t.Fatalf("got %v, %v, want that it has no reader", to, err)
	}
	said := &testproc.Log{}
	a := newWriter(o, to, Outputs{}, &counts{}, hclog.New(&hclog.LoggerOptions{Output: said}))
	before := 0 // bytes of the log before the present reader
	news := func() string { return said.String()[before:] }
	for range 2 {
		testproc.Await(t, "that it is said", func() bool { return strings.Contains(news(), "this FIFO has no reader") })
		dropped := a.dropped.Load()
		a.add(sampleRecord())
		testproc.Await(t, "a line that is dropped", func() bool { return a.dropped.Load() > dropped })
		reader, err := os.OpenFile(o.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(reader)
		testproc.Await(t, "a line that is read", func() bool {
			a.add(sampleRecord())
			_ = reader.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			line, err := lines.ReadString('\n')
			return err == nil && strings.HasPrefix(line, "2026-01-02T")
		})
		if n := strings.Count(news(), "has no reader"); n != 1 {
			t.Errorf("said %d times:\n%s", n, news())
		}
		testproc.Await(t, "that it is said", func() bool { return strings.Contains(news(), "written again") })
		_ = reader.Close()
		before = len(said.String())
		testproc.Await(t, "that the reader is missed", func() bool {
			a.add(sampleRecord())
			return strings.Contains(news(), "lictor keeps trying")
		})
	}
	a.stop()
}

// A full FIFO delays neither a change of the configuration nor the end.
func TestAccessLogIntoAFullFIFO(t *testing.T) {
	full := Options{Path: makeFIFO(t), Sample: 1}
	reader, err := os.OpenFile(full.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	a, err := startWriter(full)
	if err != nil {
		t.Fatal(err)
	}
	fill := func() (n int64) {
		before := a.dropped.Load()
		testproc.Await(t, "lines that are dropped", func() bool {
			for range 1000 {
				n++
				a.add(sampleRecord())
			}
			return a.dropped.Load() > before
		})
		return n
	}
	added := fill()
	file := Options{Path: filepath.Join(t.TempDir(), "file"), Sample: 1}
	to, err := openTarget(file, Outputs{})
	if err != nil {
		t.Fatal(err)
	}
	a.change(reconfiguration{file, to})
	testproc.Await(t, "a line in the file", func() bool {
		added++
		a.add(sampleRecord())
		return countLines(t, file.Path) > 0
	})
	if to, err = openTarget(full, Outputs{}); err != nil {
		t.Fatal(err)
	}
	a.change(reconfiguration{full, to})
	added += fill()
	a.stop()
	select {
	case <-a.ended:
	default:
		t.Error("the writer continues after its end")
	}
	if sum := a.dropped.Load() + a.written.Load(); sum != added {
		t.Errorf("%d of %d lines are accounted for", sum, added)
	}
}

// Outputs that are open are not opened again, because a socket, such as stdout under systemd, cannot be opened.
func TestAccessLogToOwnOutputs(t *testing.T) {
	stdout, stderr := &testproc.Log{}, &testproc.Log{}
	out := asyncwriter.New(stdout, asyncwriter.Options{})
	printed := asyncwriter.New(stderr, asyncwriter.Options{})
	own := Outputs{Out: out, Err: printed}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/dev/stdout", link); err != nil {
		t.Fatal(err)
	}
	paths := map[string]*testproc.Log{
		"/dev/stdout": stdout, "/dev//stdout": stdout, "/proc/self/fd/1": stdout, fmt.Sprintf("/proc/%d/fd/1",
			os.Getpid()): stdout, link: stdout,
		"/dev/stderr": stderr, "/dev/fd/2": stderr,
	}
	for path := range paths {
		o := Options{Path: path, Sample: 1}
		to, err := openTarget(o, own)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		a := newWriter(o, to, own, &counts{}, hclog.NewNullLogger())
		a.add(sampleRecord())
		a.rotated <- struct{}{}
		a.add(sampleRecord())
		a.stop()
		if err := errors.Join(out.Flush(t.Context()), printed.Flush(t.Context())); err != nil {
			t.Error(err)
		}
		if n := a.written.Load(); n != 2 {
			t.Errorf("%s: got %d lines written, want 2", path, n)
		}
	}
	if err := errors.Join(out.Close(inTime), printed.Close(inTime)); err != nil {
		t.Fatal(err)
	}
	for _, out := range []*testproc.Log{stdout, stderr} {
		want := 0
		for _, to := range paths {
			if to == out {
				want += 2
			}
		}
		if n := strings.Count(out.String(), "\n"); n != want {
			t.Errorf("got %d lines, want %d", n, want)
		}
	}
}

func TestAccessLogIntoWhatTakesNoLines(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, path := range []string{dir, socket} {
		if _, err := startWriter(Options{Path: path, Sample: 1}); err == nil ||
			!strings.HasPrefix(err.Error(), "access_log: open "+path) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	a, err := startWriter(Options{Path: "/dev/null", Sample: 1})
	if err != nil {
		t.Fatal(err)
	}
	a.add(sampleRecord())
	a.stop()
	if n := a.written.Load(); n != 1 {
		t.Errorf("/dev/null: got %d lines written", n)
	}
}

// Check returns the error that opening would return, and creates nothing.
func TestCheckOfAnAccessLog(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), makeFIFO(t)
	if err := os.WriteFile(file, []byte("a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{
		{filepath.Join(dir, "new"), ""},
		{file, ""},
		{fifo, ""},
		{"/dev/null", ""},
		{"/dev/stdout", ""},
		{dir, "access_log: open " + dir + ": is a directory: name a file or a FIFO"},
		{filepath.Join(dir, "none", "file"), "no such file or directory"},
		{filepath.Join(file, "file"), "not a directory"},
	} {
		err := Check(Options{Path: tt.path})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.path, err, tt.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("a file was made")
	}
	if os.Geteuid() == 0 {
		return // root may write everywhere
	}
	if err := os.Chmod(file, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := Check(Options{Path: file}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a file that must not be written: got %v", err)
	}
}
