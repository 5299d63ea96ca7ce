package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// fullPipe returns a pipe that takes no more bytes, because nobody reads it.
func fullPipe(t testing.TB) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _, _ = read.Close(), write.Close() })
	fd := int(write.Fd()) // which makes it blocking, as lictor is to find it
	must(t, unix.SetNonblock(fd, true))
	for buf := make([]byte, 4096); err == nil; {
		_, err = unix.Write(fd, buf)
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	must(t, unix.SetNonblock(fd, false))
	return read, write
}

// runUnread runs lictor with one service at addr and with nobody reading what it prints.
func runUnread(t testing.TB, addr netip.AddrPort, more string, body ...string) (l *lictor, unread *os.File) {
	t.Helper()
	l = &lictor{stdout: &testproc.Log{}, stderr: &testproc.Log{}, file: filepath.Join(t.TempDir(), "lictor.hcl"), runtime: shortTempDir(t)}
	l.configure(t, more+serviceAt("web", addr, body...))
	cmd := exec.Command(lictorPath(t), "run", "-config", l.file)
	cmd.Env = append(environment(), "RUNTIME_DIRECTORY="+l.runtime)
	unread, write := fullPipe(t)
	cmd.Stdout, cmd.Stderr = write, write
	var err error
	l.Process, err = testproc.Start(cmd)
	must(t, err)
	t.Cleanup(l.Kill)
	return l, unread
}

// Nobody reads stdout and stderr, from before the start. Clients are served, a reload is done, and SIGTERM ends the process.
func TestNobodyReadsTheLog(t *testing.T) {
	addr := freePort(t)
	l, _ := runUnread(t, addr, "log_level = \"debug\"\n", endpoints(startEcho(t, "a")))
	l.awaitAnswer(t, "status", 0, "ready")
	wantCounts(t, addr, map[string]int{"a": 200})
	l.configure(t, "log_level = \"debug\"\n"+serviceAt("web", addr, endpoints(startEcho(t, "b"))))
	if code, out := l.ask(t, "reload"); code != 0 {
		t.Errorf("reload: exit code %d:\n%s", code, out)
	}
	awaitRotation(t, addr, "b")
	l.terminate(t)
	l.exits(t, 0)
}

// What was printed while nobody read is there for whoever does before it is too much, and what a process ends with is too.
func TestLateReaderOfTheLog(t *testing.T) {
	addr := freePort(t)
	l, unread := runUnread(t, addr, "", endpoints(startEcho(t, "a")))
	l.awaitAnswer(t, "status", 0, "ready")
	log := &testproc.Log{}
	go func() { _, _ = unread.WriteTo(log) }() // it ends with the file
	l.terminate(t)
	l.exits(t, 0)
	eventually(t, "the log", func() error {
		for _, want := range []string{"starting", "127.0.0.1:", "ready", "stopped"} {
			if !strings.Contains(log.String(), want) {
				return fmt.Errorf("no %q in %q", want, log.String())
			}
		}
		return nil
	})
}
