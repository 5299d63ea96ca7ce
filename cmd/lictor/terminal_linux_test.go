package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/daemon"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A terminal is a pseudo-terminal, with the ends of a program and of its user.
type terminal struct {
	t       *testing.T
	program *os.File
	keys    *os.File
	screen  testproc.Log // all output so far
}

// newTerminal returns a terminal of the given size. It is closed at the end of the test.
func newTerminal(t *testing.T, width, height uint16) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	keys := os.NewFile(uintptr(fd), "/dev/ptmx") // non-blocking, so that Close ends a Read
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, program: program, keys: keys}
	x.resize(width, height)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := keys.Read(b)
			if err != nil {
				return
			}
			_, _ = x.screen.Write(b[:n])
		}
	}()
	t.Cleanup(func() {
		_ = keys.Close() // hangs up, which ends pending reads from program
		<-done
		_ = program.Close()
	})
	return x
}

func (x *terminal) resize(width, height uint16) {
	x.t.Helper()
	size := &unix.Winsize{Col: width, Row: height}
	if err := unix.IoctlSetWinsize(int(x.program.Fd()), unix.TIOCSWINSZ, size); err != nil {
		x.t.Fatal(err)
	}
}

// shows waits until the newest frame has each of the texts, and returns the frame.
func (x *terminal) shows(texts ...string) string {
	x.t.Helper()
	frame := ""
	await(x.t, fmt.Sprintf("a frame with %q", texts), func() error {
		all := x.screen.String()
		begin := strings.LastIndex(all, "\x1b[H")
		if end := strings.LastIndex(all, "\x1b[J"); end < begin { // the frame is not complete
			begin = strings.LastIndex(all[:begin], "\x1b[H")
		}
		if begin < 0 {
			return fmt.Errorf("no frame in %q", all)
		}
		frame = all[begin:]
		for _, text := range texts {
			if !strings.Contains(frame, text) {
				return fmt.Errorf("no %q in %q", text, frame)
			}
		}
		return nil
	})
	return frame
}

func (x *terminal) press(keys string) {
	x.t.Helper()
	if _, err := x.keys.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// top draws frames, follows keys and the size of the terminal, and restores the terminal.
func TestTopOnATerminal(t *testing.T) {
	t.Parallel()
	services := admin.ServicesAnswer{Services: []admin.Service{
		{Name: "web", Protocol: "tcp", Endpoints: []admin.Endpoint{{ID: "n/web-1", State: admin.StateIn}}},
		{Name: "zoo", Protocol: "udp", State: admin.StateRefusing},
	}}
	f := newFakeLictor(t, map[string]any{"GET /v1/status": admin.Status{Version: "v9"}, "GET /v1/services": services})
	x := newTerminal(t, 120, 10)
	before, err := term.GetState(int(x.program.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	code := make(chan int)
	go func() {
		args := []string{"top", "-admin", f.address, "-interval", "100ms"}
		code <- Main(args, console{in: x.program, out: x.program, err: x.program})
	}()
	x.shows("lictor v9", "[a active]", "web", red+"! zoo")
	x.press("n\x1b[B") // sort by name and select the first service
	x.shows("[n name]", reverse+"  web")
	x.press("\r")
	x.shows("in  n/web-1")
	x.resize(30, 10)
	await(t, "a frame of 30 columns", func() error {
		frame := strings.NewReplacer("\x1b[H", "", "\x1b[K", "", "\x1b[J", "").Replace(x.shows("web"))
		for line := range strings.Lines(unadorned(frame)) {
			if len(line) > 31 {
				return fmt.Errorf("%q has %d columns", line, len(line))
			}
		}
		return nil
	})
	x.press("q")
	if got := <-code; got != exitOK {
		t.Errorf("got exit code %d, want %d", got, exitOK)
	}
	after, err := term.GetState(int(x.program.Fd()))
	if err != nil || *after != *before {
		t.Errorf("the terminal was %+v, and is %+v, %v", before, after, err)
	}
	await(t, "the former screen and the cursor", func() error {
		if all := x.screen.String(); !strings.HasPrefix(all, "\x1b[?1049h\x1b[?25l") ||
			!strings.HasSuffix(all, "\x1b[?25h\x1b[?1049l") {
			return fmt.Errorf("got %q", all)
		}
		return nil
	})
}

// If lictor ends while top runs, top fails and restores the terminal.
func TestTopOfALictorThatEnds(t *testing.T) {
	t.Parallel()
	f := newFakeLictor(t, map[string]any{"GET /v1/status": admin.Status{}, "GET /v1/services": nil})
	x := newTerminal(t, 80, 24)
	before, err := term.GetState(int(x.program.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	args := []string{"top", "-admin", f.address}
	if code := Main(args, console{in: x.program, out: x.program, err: &said}); code != exitFailed {
		t.Errorf("got exit code %d, want %d", code, exitFailed)
	}
	equal(t, said.String(), "lictor top: lictor has ended\n")
	after, err := term.GetState(int(x.program.Fd()))
	if err != nil || *after != *before {
		t.Errorf("the terminal was %+v, and is %+v, %v", before, after, err)
	}
}

// If lictor ends while top runs, top says so and goes on when one answers again. It says which process that is.
func TestTopSurvivesARestart(t *testing.T) {
	t.Parallel()
	services := admin.ServicesAnswer{Services: []admin.Service{{Name: "web", State: admin.StateRefusing}}}
	f := newFakeLictor(t, map[string]any{"GET /v1/status": admin.Status{PID: 7}, "GET /v1/services": services})
	x := newTerminal(t, 120, 10)
	code := make(chan int)
	go func() {
		args := []string{"top", "-admin", f.address, "-interval", "100ms"}
		code <- Main(args, console{in: x.program, out: x.program, err: x.program})
	}()
	x.shows("! web")
	f.answer("GET /v1/status", nil)
	x.shows("no answer since", "); trying again", dim+"! web") // only the first frame says that lictor has ended
	x.press("/we")                                             // keys work meanwhile
	x.shows("filter: we_", "trying again")
	f.answer("GET /v1/status", admin.Status{PID: 8, Version: "v9"})
	x.shows("process 8 (lictor v9) answers instead of process 7", red+"! web")
	x.press("\x03")
	if got := <-code; got != exitOK {
		t.Errorf("got exit code %d, want %d", got, exitOK)
	}
}

// $NO_COLOR takes the colours away, and a terminal that cannot be redrawn gets no frames.
func TestTopWithoutColours(t *testing.T) {
	services := admin.ServicesAnswer{Services: []admin.Service{{Name: "web", State: admin.StateRefusing}}}
	f := newFakeLictor(t, map[string]any{"GET /v1/status": admin.Status{}, "GET /v1/services": services})
	t.Setenv("NO_COLOR", "1")
	x := newTerminal(t, 120, 10)
	code := make(chan int)
	args := []string{"top", "-admin", f.address, "-interval", "100ms"}
	go func() { code <- Main(args, console{in: x.program, out: x.program, err: x.program}) }()
	if frame := x.shows("! web", reverse); strings.Contains(frame, red) {
		t.Errorf("got %q", frame)
	}
	x.press("q")
	if got := <-code; got != exitOK {
		t.Errorf("got exit code %d, want %d", got, exitOK)
	}
	t.Setenv("TERM", "dumb")
	var said strings.Builder
	if got := Main(args, console{in: x.program, out: x.program, err: &said}); got != exitUsage ||
		!strings.Contains(said.String(), "$TERM is dumb: this terminal cannot be redrawn; use -once") {
		t.Errorf("got exit code %d, %s", got, said.String())
	}
}

// A footer stays below other output, has as many lines as fit, and never wraps.
func TestFooter(t *testing.T) {
	t.Parallel()
	x := newTerminal(t, 10, 4)
	f := &footer{terminal: x.program}
	write := func(text string) {
		t.Helper()
		if n, err := f.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	}
	write("before\n")
	f.show([]string{"one", "two"})
	write(redraw)
	write("part") // a line that goes on is not torn apart
	write(" of a line\n")
	f.show([]string{"a long line of text", "2", "3", "4"})
	write(redraw)
	const up = "\r\x1b[%dA\x1b[J"
	want := "before\r\none\r\ntwo\r\n" + fmt.Sprintf(up, 2) + "part of a line\r\none\r\ntwo\r\n" + fmt.Sprintf(up, 2) +
		"a long lin\r\n2\r\nand 2 more\r\n"
	await(t, "the lines", func() error {
		if got := x.screen.String(); got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		return nil
	})
	if terminalOf(f) != x.program {
		t.Error("a footer does not lead to its terminal")
	}
}

// Output to a terminal has colours, even through the queue of a daemon, unless the user refuses them.
func TestColourIsForTerminals(t *testing.T) {
	x := newTerminal(t, 80, 24)
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	queue := daemon.NewOutput(x.program, file)
	defer queue.Close()
	check := func(on bool) {
		t.Helper()
		if !on == isTerminal(x.program) || !on == isTerminal(queue.Out()) {
			t.Errorf("colours on a terminal: got %v, want %v", !on, on)
		}
		if isTerminal(file) || isTerminal(queue.Err()) || isTerminal(&strings.Builder{}) {
			t.Error("colours without a terminal")
		}
	}
	t.Setenv("NO_COLOR", "")
	check(true)
	t.Setenv("NO_COLOR", "1")
	check(false)
}

func TestProblemsAreInColour(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	path := filepath.Join(t.TempDir(), "web.hcl")
	if err := os.WriteFile(path, []byte("colour = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	x := newTerminal(t, 200, 24)
	for name, args := range map[string][]string{
		"validate": {"validate", path}, "run": {"run", "-config", path}, "plan": {"plan", "-config", path},
		"fmt": {"fmt", "-"}, "forward": {"forward", "web:9000", "api:9000"},
	} {
		before := len(x.screen.String())
		c := console{in: strings.NewReader("service {"), out: io.Discard, err: x.program}
		if code := Main(args, c); code != exitFailed {
			t.Errorf("%s: got exit code %d, want %d", name, code, exitFailed)
		}
		await(t, name+" in colour", func() error {
			if got := x.screen.String()[before:]; !strings.Contains(got, "\x1b[1;31mError\x1b[0m:") {
				return fmt.Errorf("got %q", got)
			}
			return nil
		})
	}
}
