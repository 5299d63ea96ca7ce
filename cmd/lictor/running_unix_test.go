//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/daemon"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// inTime is a deadline that only a hanging test reaches.
const inTime = time.Minute

// A running is a lictor that runs in this process with the test's configuration.
type running struct {
	t      *testing.T
	path   string // of the configuration
	socket string // of the admin API
	log    *testproc.Log
	daemon *daemon.Daemon
	end    func() // stops it; may be called twice
}

// startLictor starts a lictor with the services in src. It stops with the test.
func startLictor(t *testing.T, src string) *running {
	t.Helper()
	dir := t.TempDir()
	r := &running{
		t: t, path: filepath.Join(dir, "lictor.hcl"), socket: filepath.Join(dir, "admin.sock"), log: &testproc.Log{},
	}
	t.Setenv("LICTOR_ADMIN", "unix://"+r.socket)
	processors := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(processors) })
	r.write(src)
	load := func() (*config.Config, config.Diagnostics) {
		return config.Load([]string{r.path}, config.Options{Getenv: func(string) string { return "" }})
	}
	cfg, diags := load()
	if cfg == nil {
		t.Fatal(diags.Diagnostics)
	}
	output := daemon.NewOutput(r.log, r.log)
	signals, started, ended := make(chan os.Signal, 2), make(chan *daemon.Daemon, 1), make(chan error, 1)
	go func() {
		ended <- daemon.Run(daemon.Options{
			Config: cfg, Load: load, Output: output, Version: "v0.9", Started: func(d *daemon.Daemon) { started <- d },
		}, signals)
	}()
	r.end = sync.OnceFunc(func() {
		signals <- syscall.SIGTERM
		signals <- syscall.SIGTERM
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(inTime):
			t.Error("lictor has not ended")
		}
		output.Close()
	})
	t.Cleanup(r.end)
	select {
	case r.daemon = <-started:
	case <-time.After(inTime):
		t.Fatalf("not started:\n%s", r.log)
	}
	return r
}

// write writes src and an admin block to the configuration file.
func (r *running) write(src string) {
	r.t.Helper()
	text := fmt.Sprintf("admin {\n  listen = \"unix://%s\"\n}\n%s", r.socket, src)
	if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// echo starts an instance that sends back what it receives, and returns its address.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				b := make([]byte, 64)
				for {
					n, err := c.Read(b)
					if err != nil {
						_ = c.Close()
						return
					}
					_, _ = c.Write(b[:n])
				}
			}()
		}
	}()
	return l.Addr().String()
}

func static(name, instance string) string {
	const text = "service %q {\n  listen = \"127.0.0.1:0\"\n  static {\n    endpoints = [%q]\n  }\n}\n"
	return fmt.Sprintf(text, name, instance)
}

// connect connects to a service of the running lictor and exchanges five bytes.
func (r *running) connect(name string) net.Conn {
	r.t.Helper()
	a, err := admin.ParseAddress("unix://" + r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	client := admin.NewClient(a, "", admin.Chosen)
	defer client.Close()
	var s admin.Service
	if err := client.Get(r.t.Context(), servicePath(name), &s); err != nil {
		r.t.Fatal(err)
	}
	c, err := net.DialTimeout("tcp", s.Listeners[0], inTime)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(inTime))
	if _, err := fmt.Fprint(c, "hello"); err != nil {
		r.t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 5)); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func TestStatusOfARunningLictor(t *testing.T) {
	at := echo(t)
	r := startLictor(t, static("web", at)+static("db", "127.0.0.1:1"))
	c := r.connect("web")
	prints(t, []string{"status"}, "v0.9", "ready", "2 services", "SERVICE", "web ", "db ")
	prints(t, []string{"status", "web"}, "web", "1 static endpoint", at, "in")
	var all struct{ Services []admin.Service }
	text := prints(t, []string{"status", "-json"})
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all.Services) != 2 {
		t.Errorf("got %v, %v", all, err)
	}
	var one admin.Service
	text = prints(t, []string{"status", "-json", "web"})
	if err := json.Unmarshal([]byte(text), &one); err != nil || one.Counters.Connections != 1 {
		t.Errorf("got %+v, %v", one.Counters, err)
	}
	_, said := lictor(t, exitFailed, "status", "wbe")
	if !strings.Contains(said, `did you mean "web"?`) {
		t.Errorf("got %s", said)
	}
	_ = c.Close()
}

func TestExplainOfARunningLictor(t *testing.T) {
	at := echo(t)
	startLictor(t, static("web", at))
	prints(t, []string{"explain", "web"}, "web: 1 of 1 known endpoint gets clients", "IN ", at, "weight 1")
	text := prints(t, []string{"explain", "-json", "web"})
	if !json.Valid([]byte(text)) {
		t.Errorf("got %s", text)
	}
	if _, said := lictor(t, exitFailed, "explain", "nothing"); !strings.Contains(said, "nothing") {
		t.Errorf("got %s", said)
	}
}

func TestConnectionsOfARunningLictor(t *testing.T) {
	at := echo(t)
	r := startLictor(t, static("web", at)+static("db", at))
	c := r.connect("web")
	r.connect("db")
	client := c.LocalAddr().String()
	prints(t, []string{"connections"}, client, at, "web", "db")
	if out := prints(t, []string{"connections", "web"}, client); strings.Contains(out, "db ") {
		t.Errorf("connections of another service are listed too:\n%s", out)
	}
	var answer admin.ConnectionsAnswer
	text := prints(t, []string{"connections", "-json", "web"})
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Connections) != 1 ||
		answer.Connections[0].Client != client || answer.Connections[0].BytesUp != 5 {
		t.Errorf("got %+v, %v", answer, err)
	}
}

func TestReloadOfARunningLictor(t *testing.T) {
	at := echo(t)
	r := startLictor(t, static("web", at))
	prints(t, []string{"reload"}, "reloaded: nothing to change")
	r.write(static("web", at) + static("new", at))
	prints(t, []string{"plan", "-config", r.path}, `+ service "new"`, "1 service added")
	prints(t, []string{"reload", "-json"}, `"ok": true`, `"summary": "1 service added"`)
	prints(t, []string{"plan", "-config", r.path}, "nothing would change")
	r.connect("new")

	r.write("colour = 1\n" + static("web", at))
	if _, said := lictor(t, exitFailed, "reload"); !strings.Contains(said, "colour") {
		t.Errorf("got %s", said)
	}
	if _, said := lictor(t, exitFailed, "plan", "-config", r.path); !strings.Contains(said, "colour") {
		t.Errorf("got %s", said)
	}
	prints(t, []string{"status"}, "the last reload", "FAILED")
	events := prints(t, []string{"events"}, "reload", "colour")
	if n := strings.Count(events, "\n"); n < 3 {
		t.Errorf("%d events:\n%s", n, events)
	}
	prints(t, []string{"events", "-n", "5", "web"})
	text := prints(t, []string{"events", "-json"})
	for line := range strings.Lines(text) {
		if !json.Valid([]byte(line)) {
			t.Errorf("got %s", line)
		}
	}
}

// events -f prints events as they happen, and fails when lictor ends.
func TestEventsOfARunningLictor(t *testing.T) {
	at := echo(t)
	r := startLictor(t, static("web", at))
	var said testproc.Log
	out, code := &testproc.Log{}, make(chan int, 1)
	go func() { code <- Main([]string{"events", "-f", "-n", "0"}, console{out: out, err: &said}) }()
	// A reload without a change is an event too. Reload until one is printed, because events -f may begin after the
	// first.
	await(t, "an event", func() error {
		prints(t, []string{"reload"}, "nothing to change")
		if len(out.Lines()) == 0 {
			return fmt.Errorf("no event, but %q", said.String())
		}
		return nil
	})
	r.write(static("web", at) + static("api", at))
	prints(t, []string{"reload"}, "1 service added")
	await(t, "what happens", func() error {
		for _, want := range []string{"reload     -  1 service added", "joined     api"} {
			if !strings.Contains(out.String(), want) {
				return fmt.Errorf("no %q in %q", want, out.String())
			}
		}
		return nil
	})
	r.end()
	if got := <-code; got != exitFailed || said.String() != "lictor events: lictor has ended\n" {
		t.Errorf("got exit code %d, %q", got, said.String())
	}
}

func TestTopOfARunningLictor(t *testing.T) {
	at := echo(t)
	r := startLictor(t, static("web", at))
	r.connect("web")
	out := prints(t, []string{"top", "-once", "-interval", "100ms"}, "1 service, 1 in, 0 out", "\n  web ", "in  "+at)
	if strings.Contains(out, "\x1b") || strings.Contains(out, "help") {
		t.Errorf("escape sequences or keys in %q", out)
	}
	var all struct {
		Status   admin.Status
		Services []admin.Service
	}
	text := prints(t, []string{"top", "-json"})
	if err := json.Unmarshal([]byte(text), &all); err != nil || all.Status.ConnectionsActive != 1 ||
		len(all.Services) != 1 {
		t.Errorf("got %+v, %v", all, err)
	}
}

// forward prints the traffic each time it has changed, and only then.
func TestForwardPrintsTheTraffic(t *testing.T) {
	r := startLictor(t, static("web", echo(t)))
	said := &testproc.Log{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&forwardCommand{console: console{err: said}}).live(ctx, r.daemon)
	}()
	await(t, "the first line", func() error {
		if len(said.Lines()) == 0 {
			return errors.New("none")
		}
		return nil
	})
	_ = r.connect("web").Close()
	await(t, "a line of the connection that has ended", func() error {
		if want := "web: 0 open of 1, 5 B up, 5 B down\n"; !strings.HasSuffix(said.String(), want) {
			return fmt.Errorf("no %q in %q", want, said.String())
		}
		return nil
	})
	cancel()
	<-done
	lines := said.Lines()
	if lines[0] != "web: 0 open of 0, 0 B up, 0 B down" || len(slices.Compact(slices.Clone(lines))) != len(lines) {
		t.Errorf("got %q", lines)
	}
}

// A lictor that the test runs in its own process cannot be upgraded, and the command says so.
func TestUpgradeOfARunningLictor(t *testing.T) {
	startLictor(t, static("web", echo(t)))
	if _, said := lictor(t, exitFailed, "upgrade"); !strings.Contains(said, "cannot be replaced") {
		t.Errorf("got %s", said)
	}
}

func TestPlanSaysWhatAnotherVersionIs(t *testing.T) {
	r := startLictor(t, static("web", echo(t)))
	_, said := lictor(t, exitOK, "plan", "-config", r.path)
	if !strings.Contains(said, "the running lictor has version v0.9, this one "+newBuild().Version+":") {
		t.Errorf("got %s", said)
	}
}

// If a daemon does not start, run and forward print the reason and fail.
func TestStartThatFailsIsExplained(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	path := filepath.Join(t.TempDir(), "lictor.hcl")
	src := strings.ReplaceAll(static("web", "127.0.0.1:1"), "127.0.0.1:0", taken.Addr().String())
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	processors := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(processors)
	_, said := lictor(t, exitFailed, "run", "-config", path, "-log-level", "error")
	if !strings.Contains(said, "lictor: ") || !strings.Contains(said, "something else listens there") {
		t.Errorf("got %s", said)
	}
	_, said = lictor(t, exitFailed, "run", "-config", path, "-log-json")
	lines := strings.Split(strings.TrimSpace(said), "\n")
	var last struct {
		Message string `json:"@message"`
		Error   string `json:"error"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Message != "not started" ||
		!strings.Contains(last.Error, "something else listens there") {
		t.Errorf("got %+v, %v in %s", last, err, said)
	}
}

func TestForwardThatCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	processors := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(processors)
	port := taken.Addr().(*net.TCPAddr).Port
	_, said := lictor(t, exitFailed, "forward", "-consul", "127.0.0.1:1", fmt.Sprintf("web:%d", port))
	if !strings.Contains(said, "something else listens there") {
		t.Errorf("got %s", said)
	}
	if _, said := lictor(t, exitUsage, "forward"); !strings.Contains(said, "no service given") {
		t.Errorf("got %s", said)
	}
}
