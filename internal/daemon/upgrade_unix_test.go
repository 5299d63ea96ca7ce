//go:build unix

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// successorVariable names the configuration that this test binary serves as a successor, instead of running tests.
const successorVariable = "LICTOR_TEST_SUCCESSOR"

func TestMain(m *testing.M) {
	if path := os.Getenv(successorVariable); path != "" {
		if err := succeed(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// succeed takes over from the predecessor, and serves until a signal.
func succeed(path string) error {
	p, err := upgrade.FindPredecessor(os.Getenv)
	if err != nil {
		return err
	}
	load := func() (*config.Config, config.Diagnostics) { return config.Load([]string{path}, config.Options{}) }
	cfg, diags := load()
	if cfg == nil {
		p.Failed(diags.Err())
		return diags.Err()
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM)
	output := NewOutput(os.Stdout, os.Stderr)
	defer output.Close()
	program, err := upgrade.ProgramPath()
	if err != nil {
		return err
	}
	return Run(Options{
		Config: cfg, Load: load, Output: output, Predecessor: p, Program: program, Version: "v1", Revision: "abc",
	}, signals)
}

// replaceable starts a daemon that this test binary can replace.
func replaceable(t *testing.T, src string) *served {
	t.Helper()
	s := newServed(t, src)
	t.Setenv(successorVariable, s.path)
	program, err := upgrade.ProgramPath()
	if err != nil {
		t.Fatal(err)
	}
	s.start(Options{Program: program}, nil)
	return s
}

// answers waits until process pid serves the admin API at the socket.
func answers(t *testing.T, socket string, pid int) {
	t.Helper()
	client := admin.NewClient(admin.Address{Socket: socket}, "", admin.Chosen)
	defer client.Close()
	testproc.Await(t, "the admin API of the successor", func() bool {
		var status admin.Status
		return client.Get(t.Context(), "/v1/status", &status) == nil && status.PID == pid && status.Version == "v1"
	})
}

// end ends a process with a signal, and waits until it has ended.
func end(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Errorf("%d: %v", pid, err)
	}
	testproc.Await(t, "the end of the successor", func() bool { return syscall.Kill(pid, 0) != nil })
}

func TestAnotherProcessTakesOver(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	src := fmt.Sprintf("admin {\n  listen = \"unix://%s\"\n}\n", socket) +
		service("web", "127.0.0.1:0", instance(t, "a"), "") + service("gone", "127.0.0.1:0", instance(t, "b"), "")
	s := replaceable(t, src)
	at, goneAt := s.address("web"), s.address("gone")
	kept := reaches(t, at, "a")
	// The successor finds another configuration, but the services keep the ports that the kernel chose.
	s.write(strings.Split(src, "service \"gone\"")[0])

	got, err := s.Upgrade(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	defer end(t, got.PID)
	if got.PID == os.Getpid() || got.PID == 0 || got.Version != "v1" || got.Revision != "abc" {
		t.Errorf("got %+v", got)
	}
	answers(t, socket, got.PID)
	_ = reaches(t, at, "a").Close()
	if _, err := net.DialTimeout("tcp", goneAt, testproc.Patience); err == nil {
		t.Error("the removed service accepts a client")
	}
	if _, err := fmt.Fprintln(kept, "still here"); err != nil {
		t.Errorf("the connection from before the upgrade: %v", err)
	}

	// The former process refuses reloads and upgrades, and ends with its last connection.
	s.signals <- syscall.SIGHUP
	s.awaitLog("signal ignored: signal=hangup")
	if _, err := s.Upgrade(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprint("process ", got.PID)) {
		t.Errorf("another upgrade of the former process: got %v", err)
	}
	select {
	case err := <-s.end:
		t.Fatalf("the process ended although it had a connection: %v", err)
	default:
	}
	_ = kept.Close()
	if err := testproc.Receive(t, "the end of the former process", s.end); err != nil {
		t.Error(err)
	}
	s.awaitLog("the last connection has ended")
}

// A signal to the former process gives its connections shutdown_grace, and a second signal cuts them.
func TestSignalEndsTheFormerProcess(t *testing.T) {
	s := replaceable(t, "admin {\n  listen = \"off\"\n}\n"+service("web", "127.0.0.1:0", instance(t, "a"), ""))
	kept := reaches(t, s.address("web"), "a")
	s.signals <- syscall.SIGUSR2
	s.awaitLog("another process has taken over")
	by := s.upgrades.Successor()
	defer end(t, by.PID)
	s.signals <- syscall.SIGTERM
	s.awaitLog("stopping: signal=terminated")
	s.signals <- syscall.SIGTERM
	if err := testproc.Receive(t, "the end", s.end); err != nil {
		t.Error(err)
	}
	s.awaitLog(`open connections were cut: reason="second signal"`)
	if _, err := kept.Read(make([]byte, 1)); err == nil {
		t.Error("the connection was not cut")
	}
}

// After a failed upgrade, clients are served and reloads work as before.
func TestUpgradeThatFailsChangesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	a, b := instance(t, "a"), instance(t, "b")
	src := service("web", "127.0.0.1:0", a, "")
	s := replaceable(t, src)
	defer s.stop()
	at := s.address("web")
	for name, tt := range map[string]struct{ src, want string }{
		"configuration": {"service", "lictor.hcl:1"},
		"address":       {src + service("new", taken.Addr().String(), b, ""), "address already in use"},
	} {
		s.write(tt.src)
		if _, err := s.Upgrade(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		reaches(t, at, "a")
	}
	s.o.Program = filepath.Join(t.TempDir(), "nothing")
	if _, err := s.Upgrade(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot be started") {
		t.Errorf("program: got %v", err)
	}
	s.o.Program = ""
	if _, err := s.Upgrade(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot be replaced") {
		t.Errorf("no program: got %v", err)
	}
	if s.upgrades.Successor() != nil {
		t.Error("the process was replaced")
	}
	s.mustReload(service("web", "127.0.0.1:0", b, ""), "1 service changed")
	reaches(t, at, "b")
}

// A successor that starts and then does nothing does not delay a signal to this process.
func TestSignalDuringAnUpgrade(t *testing.T) {
	s := newServed(t, service("web", "127.0.0.1:0", instance(t, "a"), ""))
	hangs := filepath.Join(t.TempDir(), "hangs")
	started := hangs + ".started"
	script := "#!/bin/sh\n: >" + started + "\nexec sleep 3600\n"
	if err := os.WriteFile(hangs, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s.start(Options{Program: hangs}, nil)
	result := make(chan error, 1)
	go func() {
		_, err := s.Upgrade(t.Context())
		result <- err
	}()
	testproc.Await(t, "the successor", func() bool { _, err := os.Stat(started); return err == nil })
	s.signals <- syscall.SIGTERM
	if err := testproc.Receive(t, "the upgrade", result); err != upgrade.ErrEnding {
		t.Errorf("got %v, want %v", err, upgrade.ErrEnding)
	}
	if err := testproc.Receive(t, "the end", s.end); err != nil {
		t.Errorf("%v\n%s", err, s.log)
	}
}

// An upgrade waits for a running reload until its context ends.
func TestUpgradeWaitsForAReload(t *testing.T) {
	s := serveConfiguration(t, oneService, nil)
	defer s.stop()
	if err := s.reloading.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		err := upgrade.ErrInProgress
		for errors.Is(err, upgrade.ErrInProgress) { // the attempts below may be in progress
			_, err = s.Upgrade(t.Context())
		}
		result <- err
	}()
	testproc.Await(t, "an upgrade in progress", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond) // the attempt may be the first one
		defer cancel()
		_, err := s.Upgrade(ctx)
		return errors.Is(err, upgrade.ErrInProgress)
	})
	s.reloading.giveBack()
	err := testproc.Receive(t, "the upgrade", result)
	if err == nil || !strings.Contains(err.Error(), "cannot be replaced") {
		t.Errorf("got %v", err)
	}
}

func TestInheritedAdminListener(t *testing.T) {
	tcp := func(text string) admin.Address {
		a, err := admin.ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	t.Setenv("RUNTIME_DIRECTORY", "/run/mine")
	fixed := tcp("127.0.0.1:8510").TCP
	for _, tt := range []struct {
		name string
		cfg  config.Admin
		at   string
		want bool
	}{
		{"off", config.Admin{Off: true}, "127.0.0.1:8510", false},
		{"the same socket", config.Admin{Socket: "/run/s"}, "unix:///run/s", true},
		{"another socket", config.Admin{Socket: "/run/s"}, "unix:///run/t", false},
		{"the same address", config.Admin{TCP: fixed}, "127.0.0.1:8510", true},
		{"another port", config.Admin{TCP: fixed}, "127.0.0.1:8511", false},
		{"any port", config.Admin{TCP: tcp("127.0.0.1:0").TCP}, "127.0.0.1:8511", true},
		{"any port of another address", config.Admin{TCP: tcp("127.0.0.2:0").TCP}, "127.0.0.1:8511", false},
		{"default", config.Admin{}, "unix:///run/mine/admin.sock", true},
		{"not a default", config.Admin{}, "unix:///tmp/admin.sock", false},
	} {
		if got := wantsAdmin(tt.cfg, tcp(tt.at)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A client that has read the events of the former process can continue with those of its successor.
func TestEventsGoOnOverAnUpgrade(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	s := replaceable(t, fmt.Sprintf("admin {\n  listen = \"unix://%s\"\n}\n", socket)+
		service("web", "127.0.0.1:0", instance(t, "a"), ""))
	for range 100 {
		s.events.Add(endpoints.Event{Kind: endpoints.KindReload})
	}
	client := admin.NewClient(admin.Address{Socket: socket}, "", admin.Chosen)
	defer client.Close()
	var before, after admin.EventsAnswer
	if err := client.Get(t.Context(), "/v1/events", &before); err != nil {
		t.Fatal(err)
	}
	got, err := s.Upgrade(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, got.PID)
	answers(t, socket, got.PID)
	if err := client.Post(t.Context(), "/v1/reload", nil, new(admin.Reload)); err != nil {
		t.Fatal(err)
	}
	if err := client.Get(t.Context(), fmt.Sprint("/v1/events?after=", before.Next), &after); err != nil {
		t.Fatal(err)
	}
	if n := len(after.Events); n == 0 || after.Events[n-1].Kind != endpoints.KindReload ||
		after.Events[0].Seq <= before.Next {
		t.Errorf("after event %d got %+v", before.Next, after)
	}
}

func TestFirstEvent(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got, later := firstEvent(now, 7), firstEvent(now.Add(time.Second), 0); got <= 7 || later < got+1e6 {
		t.Errorf("got %d, and %d a second later", got, later)
	}
	if got := firstEvent(time.Unix(-1, 0), 7); got != 7 { // a wrong clock
		t.Errorf("got %d, want the predecessor's", got)
	}
}
