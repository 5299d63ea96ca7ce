//go:build unix

package accesslog

import (
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/asyncwriter"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// fileLimit is the size of about 1,200 lines and a part of a line, in bytes. It is more than the test tool of Go writes
// into files of its own meanwhile.
const fileLimit = 300_000

// limitFiles limits the size of files that this process writes, until the returned function is called. The system then
// behaves as on a full disk: it writes the bytes that fit, and refuses the rest.
func limitFiles(t *testing.T) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limited := before
	limited.Cur = fileLimit
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited); err != nil {
		t.Fatal(err)
	}
	lift = func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(lift)
	return lift
}

// fillDisk adds records to an access log while its file cannot grow, and more after lift.
func fillDisk(t *testing.T, a *writer, lift func()) (added int64) {
	t.Helper()
	add := func(n int64) {
		for range n {
			a.add(sampleRecord())
		}
		added += n
	}
	add(2000)
	testproc.Await(t, "lines that are dropped", func() bool { add(1); return a.dropped.Load() > 100 })
	lift()
	written := a.written.Load()
	testproc.Await(t, "lines that are written", func() bool { add(1); return a.written.Load() > written+1 })
	return added
}

// checkFile checks that a file has only whole lines, as many as were counted, and that all added records were counted.
func checkFile(t *testing.T, path string, c *counts, added int64) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := int64(0)
	for line := range strings.Lines(string(text)) {
		lines++
		if !json.Valid([]byte(line)) {
			t.Errorf("line %d is torn: %s", lines, line)
		}
	}
	if written, dropped := c.written.Load(), c.dropped.Load(); written != lines || written+dropped != added {
		t.Errorf("%d lines written and %d dropped are counted, the file has %d of %d", written, dropped, lines, added)
	}
}

func TestAccessLogOnAFullDisk(t *testing.T) {
	said, o := &testproc.Log{}, Options{Path: filepath.Join(t.TempDir(), "a"), JSON: true, Sample: 1}
	to, err := openTarget(o, Outputs{})
	if err != nil {
		t.Fatal(err)
	}
	lift := limitFiles(t)
	a := newWriter(o, to, Outputs{}, &counts{}, hclog.New(&hclog.LoggerOptions{Output: said}))
	added := fillDisk(t, a, lift)
	a.stop()
	checkFile(t, o.Path, a.counts, added)
	if n := strings.Count(said.String(), "cannot be written"); n != 1 {
		t.Errorf("said %d times, want once:\n%s", n, said)
	}
}

func TestAccessLogToAnOutputOnAFullDisk(t *testing.T) {
	file, err := os.OpenFile(filepath.Join(t.TempDir(), "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	out, said := asyncwriter.New(file, asyncwriter.Options{}), &testproc.Log{}
	own := Outputs{Out: out}
	o := Options{Path: "/dev/stdout", JSON: true, Sample: 1}
	lift := limitFiles(t)
	a := newWriter(o, target{own: out}, own, &counts{}, hclog.New(&hclog.LoggerOptions{Output: said}))
	added := fillDisk(t, a, lift)
	a.stop()
	if err := errors.Join(out.Flush(t.Context()), out.Close(inTime)); err != nil {
		t.Error(err)
	}
	checkFile(t, file.Name(), a.counts, added)
	if n := strings.Count(said.String(), "cannot be written"); n != 1 {
		t.Errorf("said %d times, want once:\n%s", n, said)
	}
}
