//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A lictor is a process of `lictor run`.
type lictor struct {
	*testproc.Process
	stdout, stderr *testproc.Log
	file           string // the configuration
	services       int
	runtime        string // the folder of the admin socket
}

// serviceBlock matches the beginning of a service block.
var serviceBlock = regexp.MustCompile(`(?m)^\s*service "`)

// runLictor runs lictor with a configuration, and waits until it is ready.
func runLictor(t testing.TB, config string) *lictor {
	t.Helper()
	l := startLictor(t, config)
	l.awaitReady(t)
	if strings.Contains(config, "kernel_path = \"on\"") {
		l.awaitPath(t)
	}
	return l
}

// awaitPath waits until all services have endpoints on the kernel path, which gets them a moment after the listeners.
func (l *lictor) awaitPath(t testing.TB) {
	t.Helper()
	eventually(t, "all services are on the kernel path", func() error {
		if _, out := l.ask(t, "status", "-json"); !strings.Contains(out, `"kernel": true`) ||
			strings.Contains(out, `"why":`) {
			return errors.New(out)
		}
		return nil
	})
}

// startLictor runs lictor with a configuration, and waits until its listeners are open.
func startLictor(t testing.TB, config string, wrapper ...string) *lictor {
	t.Helper()
	return launchLictor(t, config, nil, wrapper)
}

// startWith is startLictor with files that Lictor inherits.
func startWith(t testing.TB, config string, files []*os.File, wrapper ...string) *lictor {
	t.Helper()
	return launchLictor(t, config, files, wrapper)
}

// launchLictor is startLictor with more options of `lictor run`.
func launchLictor(t testing.TB, config string, files []*os.File, wrapper []string, options ...string) *lictor {
	t.Helper()
	l := &lictor{stdout: &testproc.Log{}, stderr: &testproc.Log{}, file: filepath.Join(t.TempDir(), "lictor.hcl"),
		services: len(serviceBlock.FindAllString(config, -1))}
	l.configure(t, config)
	args := slices.Concat(wrapper, []string{lictorPath(t), "run", "-config", l.file, "-log-json"}, options)
	cmd := exec.Command(args[0], args[1:]...)
	l.runtime = shortTempDir(t)
	cmd.Env = append(environment(), "RUNTIME_DIRECTORY="+l.runtime)
	cmd.ExtraFiles = files
	cmd.Stdout, cmd.Stderr = l.stdout, l.stderr
	var err error
	l.Process, err = testproc.Start(cmd)
	must(t, err)
	t.Cleanup(func() { l.cleanup(t) })
	eventually(t, "a line for each listener", func() error {
		if !l.Running() {
			t.Fatalf("lictor has ended: %s", l.stderr)
		}
		if n := len(l.stdout.Lines()); n < l.services {
			return fmt.Errorf("%d lines of %d", n, l.services)
		}
		return nil
	})
	return l
}

// configure replaces the configuration file in one step.
func (l *lictor) configure(t testing.TB, config string) {
	t.Helper()
	if engine := os.Getenv(engineVar); engine != "" {
		config = fmt.Sprintf("engine = %q\n", engine) + config
	}
	must(t, os.WriteFile(l.file+".new", []byte(config), 0o600))
	must(t, os.Rename(l.file+".new", l.file))
}

// reload replaces the configuration, sends SIGHUP, and returns the log entry about the result.
func (l *lictor) reload(t testing.TB, config string) entry {
	t.Helper()
	l.configure(t, config)
	skip := len(l.log())
	must(t, l.Signal(syscall.SIGHUP))
	return l.awaitLog(t, skip, reloadEnded)
}

// mustReload is reload, but fails the test if the configuration is not applied.
func (l *lictor) mustReload(t testing.TB, config string) {
	t.Helper()
	if e := l.reload(t, config); e.field("@message") != "reloaded" {
		t.Fatalf("not reloaded: %v", e)
	}
}

func reloadEnded(e entry) bool {
	return e.field("@message") == "reloaded" || strings.HasPrefix(e.field("@message"), "not reloaded")
}

// environment returns this process's environment without the variables that Lictor reads.
func environment() []string {
	env := []string{"GORACE=atexit_sleep_ms=0"} // otherwise each Lictor with the race detector takes a second to end
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CONSUL") && !strings.HasPrefix(v, "LICTOR") {
			env = append(env, v)
		}
	}
	return env
}

// cleanup kills Lictor, and fails the test if the log has a data race or a panic.
func (l *lictor) cleanup(t testing.TB) {
	l.Kill()
	for _, sign := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(l.stderr.String(), sign) {
			t.Errorf("lictor said %q", sign)
		}
	}
	if t.Failed() {
		t.Logf("lictor said:\n%s%s", l.stdout, l.stderr.Tail(100))
	}
}

// addr returns the listener's address of a service, from the line that Lictor printed about it.
func (l *lictor) addr(t testing.TB, service string) netip.AddrPort {
	t.Helper()
	for _, line := range l.stdout.Lines() {
		if f := strings.Fields(line); len(f) > 3 && f[0] == service {
			addr, err := netip.ParseAddrPort(f[2])
			must(t, err)
			return addr
		}
	}
	t.Fatalf("no line of service %s:\n%s", service, l.stdout)
	panic("unreachable")
}

// An entry is one line of the log.
type entry map[string]any

func (e entry) field(name string) string {
	if v, ok := e[name]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// log returns all log entries so far.
func (l *lictor) log() []entry { return parseLog(l.stderr.Lines()) }

func parseLog(lines []string) []entry {
	var entries []entry
	for _, line := range lines {
		var e entry
		if json.Unmarshal([]byte(line), &e) == nil {
			entries = append(entries, e)
		}
	}
	return entries
}

func (l *lictor) awaitReady(t testing.TB) {
	t.Helper()
	l.awaitLog(t, 0, func(e entry) bool { return e.field("@message") == "ready" })
}

// awaitLog waits for a log entry that matches. It ignores the first skip entries.
func (l *lictor) awaitLog(t testing.TB, skip int, matches func(entry) bool) entry {
	t.Helper()
	var found entry
	seen := 0 // lines, each of which is parsed once
	within(t, 3*patience, "a certain line in lictor's log", func() error {
		if !l.Running() {
			t.Fatal("lictor has ended")
		}
		lines := l.stderr.Lines()
		fresh := parseLog(lines[seen:])
		seen = len(lines)
		for _, e := range fresh[min(skip, len(fresh)):] {
			if matches(e) {
				found = e
				return nil
			}
		}
		skip -= min(skip, len(fresh))
		return errors.New("not there")
	})
	return found
}

// complaint matches warnings and errors that contain one of the words.
func complaint(words ...string) func(entry) bool {
	return func(e entry) bool {
		if level := e.field("@level"); level != "warn" && level != "error" {
			return false
		}
		text := strings.ToLower(fmt.Sprint(e))
		for _, word := range words {
			if strings.Contains(text, strings.ToLower(word)) {
				return true
			}
		}
		return false
	}
}

func (l *lictor) terminate(t testing.TB) { t.Helper(); must(t, l.Signal(syscall.SIGTERM)) }

// exits waits until Lictor ends by itself, and checks its exit code.
func (l *lictor) exits(t testing.TB, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := l.ExitCode(ctx)
	must(t, err)
	if got != want {
		t.Errorf("exit code %d, want %d", got, want)
	}
}

// consulBlock returns the consul block for c.
func consulBlock(c *consul) string {
	return fmt.Sprintf("consul {\n  address = %q\n}\n", c.HTTP)
}

// service returns a service block with a listener at a free port of 127.0.0.1. body holds the other lines of the block.
func service(name string, body ...string) string {
	return fmt.Sprintf("service %q {\n  listen = \"127.0.0.1:0\"\n  %s\n}\n", name, strings.Join(body, "\n  "))
}
