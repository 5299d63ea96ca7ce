package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// fullPipe returns a pipe that is full, because nothing reads it.
func fullPipe(t testing.TB) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _, _ = read.Close(), write.Close() })
	fd := int(write.Fd()) // Fd makes the pipe blocking, as Lictor has to find it
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

// runUnread runs Lictor with one service at addr. Nothing reads Lictor's output.
func runUnread(t testing.TB, addr netip.AddrPort, more string, body ...string) (l *lictor, unread *os.File) {
	t.Helper()
	l = &lictor{stdout: &testproc.Log{}, stderr: &testproc.Log{}, file: filepath.Join(t.TempDir(), "lictor.hcl"),
		runtime: shortTempDir(t)}
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

// From the start, nothing reads stdout and stderr. Lictor serves clients, reloads, and ends after SIGTERM.
func TestNobodyReadsTheLog(t *testing.T) {
	anyEngine(t)
	t.Parallel()
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

// A reader that comes late gets everything that Lictor has printed, and also what it prints at its end.
func TestLateReaderOfTheLog(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	addr := freePort(t)
	l, unread := runUnread(t, addr, "", endpoints(startEcho(t, "a")))
	l.awaitAnswer(t, "status", 0, "ready")
	log := &testproc.Log{}
	go func() { _, _ = unread.WriteTo(log) }() // until the file ends
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

// loopThread finds the thread of an event loop. That thread waits in epoll for clients of the listener at addr, among
// others. loopThread never returns the main thread. If that one stops, the kernel also tells the goroutine that waits
// for the process, and then the tracer may miss the stop.
func (l *lictor) loopThread(t testing.TB, addr netip.AddrPort) (tid int) {
	t.Helper()
	inode := listeningInode(t, addr)
	proc := fmt.Sprintf("/proc/%d/", l.Pid())
	eventually(t, "an event loop that waits", func() error {
		threads, err := os.ReadDir(proc + "task")
		must(t, err)
		for _, thread := range threads {
			if thread.Name() == strconv.Itoa(l.Pid()) {
				continue
			}
			call, err := os.ReadFile(proc + "task/" + thread.Name() + "/syscall")
			if errors.Is(err, fs.ErrPermission) {
				t.Skip("this system does not let a process look at its children:", err)
			}
			var number, epfd int
			if n, _ := fmt.Sscanf(string(call), "%d 0x%x", &number, &epfd); n != 2 || number != unix.SYS_EPOLL_PWAIT {
				continue
			}
			watched, _ := os.ReadFile(fmt.Sprintf("%sfdinfo/%d", proc, epfd))
			for line := range strings.Lines(string(watched)) {
				var fd int
				if n, _ := fmt.Sscanf(line, "tfd: %d", &fd); n != 1 {
					continue
				}
				if target, _ := os.Readlink(fmt.Sprintf("%sfd/%d", proc, fd)); target == "socket:["+inode+"]" {
					tid, err = strconv.Atoi(thread.Name())
					return err
				}
			}
		}
		return errors.New("there is none")
	})
	return tid
}

// listeningInode returns the inode of the socket that listens at an IPv4 address.
func listeningInode(t testing.TB, addr netip.AddrPort) string {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	must(t, err)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", addr.Port())) && f[3] == "0A" {
			return f[9]
		}
	}
	t.Fatalf("nobody listens at %s", addr)
	panic("unreachable")
}

// freeze stops a thread until thaw is called or the process has ended.
func freeze(t testing.TB, tid int) (thaw func()) {
	t.Helper()
	frozen, over, done := make(chan error, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the tracer is a thread
		defer runtime.UnlockOSThread()
		err := unix.PtraceSeize(tid)
		if err == nil {
			err = unix.PtraceInterrupt(tid)
		}
		if err == nil {
			_, err = unix.Wait4(tid, nil, unix.WALL, nil)
		}
		frozen <- err
		for ended := 0; err == nil && ended == 0; {
			select {
			case <-over:
				_ = unix.PtraceDetach(tid) // it fails if the thread has ended
				return
			case <-time.After(5 * time.Millisecond):
				// Without this, the ended process would remain a zombie.
				ended, err = unix.Wait4(tid, nil, unix.WALL|unix.WNOHANG, nil)
			}
		}
	}()
	thaw = sync.OnceFunc(func() { close(over); <-done })
	t.Cleanup(thaw)
	if err := <-frozen; errors.Is(err, unix.EPERM) {
		t.Skip("this system does not let a process trace its children:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return thaw
}

// healthz asks the admin API whether Lictor is healthy.
func (l *lictor) healthz(t testing.TB) (code int, text string) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(l.runtime, "admin.sock"))
		},
	}}
	answer, err := client.Get("http://lictor/healthz")
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, string(body)
}

// An event loop is stuck. A health probe hears which one, systemd's watchdog hears nothing, and a signal still ends the
// process.
func TestStuckEventLoop(t *testing.T) {
	t.Parallel()
	if os.Getenv(engineVar) != "" {
		t.Skip("this engine has no event loops")
	}
	s := listenNotify(t)
	l := runNotifying(t, s, time.Second, "shutdown_grace = \"0s\"\n"+service("web", endpoints(startEcho(t, "a"))))
	s.await(t, s.await(t, 0, "READY=1"), "WATCHDOG=1")
	if code, text := l.healthz(t); code != 200 || text != "ok\n" {
		t.Errorf("while all is well: got %d, %q", code, text)
	}
	addr := l.addr(t, "web")
	thaw := freeze(t, l.loopThread(t, addr))
	for range 3 {
		if code, text := l.healthz(t); code != 503 || !strings.Contains(text, "event loop") {
			t.Errorf("while a loop is stuck: got %d, %q", code, text)
		}
	}
	stuck := func(e entry) bool { return strings.Contains(e.field("@message"), "lictor is stuck") }
	after := func(times int) int { // number of messages to systemd when the log has said it so often
		eventually(t, "that it is said", func() error {
			n := 0
			for _, e := range l.log() {
				if stuck(e) {
					n++
				}
			}
			if n < times {
				return fmt.Errorf("%d times of %d", n, times)
			}
			return nil
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.messages)
	}
	before := after(2)
	if n := after(4); n != before {
		t.Errorf("systemd was told %q", s.messages[before:])
	}
	thaw()
	eventually(t, "health", func() error {
		if code, text := l.healthz(t); code != 200 {
			return fmt.Errorf("got %d, %q", code, text)
		}
		return nil
	})
	s.await(t, before, "WATCHDOG=1")

	freeze(t, l.loopThread(t, addr))
	l.terminate(t)
	l.exits(t, 1)
	if !strings.Contains(l.stderr.String(), "connections could not be cut") {
		t.Errorf("it said:\n%s", l.stderr)
	}
}

// Lictor starts, serves and ends although the reader of its FIFO comes late or never.
func TestAccessLogFIFO(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "access.log")
	must(t, unix.Mkfifo(fifo, 0o600))
	l := runLictor(t, fmt.Sprintf("access_log { path = %q }\n", fifo)+service("web", endpoints(startEcho(t, "a"))))
	wantCounts(t, l.addr(t, "web"), map[string]int{"a": 3})
	l.awaitLog(t, 0, complaint("this FIFO has no reader"))

	// The reader also opens it for writing. Otherwise it would read an end before Lictor has opened the FIFO.
	reader, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	must(t, err)
	defer func() { _ = reader.Close() }()
	lines := &testproc.Log{}
	go func() { _, _ = reader.WriteTo(lines) }() // until it is closed
	eventually(t, "a line in the FIFO", func() error {
		must(t, mustConnect(t, l.addr(t, "web")).Close())
		if len(lines.Lines()) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	l.terminate(t)
	l.exits(t, 0)
}

// The access log goes to stdout, which is a socket under systemd.
func TestAccessLogToStdoutThatIsASocket(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	theirs, ours := os.NewFile(uintptr(pair[0]), "theirs"), os.NewFile(uintptr(pair[1]), "ours")
	defer func() { _, _ = theirs.Close(), ours.Close() }()
	l := &lictor{stdout: &testproc.Log{}, stderr: &testproc.Log{}, file: filepath.Join(t.TempDir(), "lictor.hcl"),
		runtime: shortTempDir(t)}
	l.configure(t, "access_log { path = \"/dev/stdout\" }\n"+service("web", endpoints(startEcho(t, "a"))))
	cmd := exec.Command(lictorPath(t), "run", "-config", l.file, "-log-json")
	cmd.Env = append(environment(), "RUNTIME_DIRECTORY="+l.runtime)
	cmd.Stdout, cmd.Stderr = theirs, l.stderr
	l.Process, err = testproc.Start(cmd)
	must(t, err)
	t.Cleanup(func() { l.cleanup(t) })
	go func() { _, _ = ours.WriteTo(l.stdout) }() // until it is closed
	eventually(t, "a line for the listener", func() error {
		if len(l.stdout.Lines()) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	wantCounts(t, l.addr(t, "web"), map[string]int{"a": 3})
	l.terminate(t)
	l.exits(t, 0)
	eventually(t, "three lines of the access log", func() error {
		if n := strings.Count(l.stdout.String(), `"service":"web"`); n != 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
}
