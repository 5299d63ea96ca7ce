//go:build unix

package testproc

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func start(t *testing.T, script string, log *Log) *Process {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Stdout = log
	p, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestExitCode(t *testing.T) {
	var log Log
	p := start(t, "echo one; echo two; printf rest; exit 7", &log)
	if code, err := p.ExitCode(t.Context()); code != 7 || err != nil {
		t.Errorf("got %d, %v, want 7", code, err)
	}
	if p.Running() || p.Signal(syscall.SIGTERM) != nil {
		t.Error("what has ended runs, or a signal to it is an error")
	}
	if got, want := log.Lines(), []string{"one", "two"}; !slices.Equal(got, want) {
		t.Errorf("complete lines: got %q, want %q", got, want)
	}
	if got, want := log.Tail(2), "two\nrest"; got != want {
		t.Errorf("tail: got %q, want %q", got, want)
	}
}

func TestStopKillsWhatDoesNotEnd(t *testing.T) {
	var log Log
	p := start(t, "trap '' TERM; echo deaf; while :; do sleep 1; done", &log)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := Poll(ctx, func() error {
		if len(log.Lines()) == 0 {
			return errors.New("it has not set its trap yet")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Stop(syscall.SIGTERM, 10*time.Millisecond)
	if code, err := p.ExitCode(ctx); code != -1 || err != nil {
		t.Errorf("got %d, %v, want -1 for a process that was killed", code, err)
	}
}

func TestPollSaysWhyItGaveUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := Poll(ctx, func() error {
		cancel()
		return errors.New("not yet")
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("got %v, want it to tell of the end and of the last error", err)
	}
}

func TestStartApartOutlivesTheThread(t *testing.T) {
	var p *Process
	var err error
	over := make(chan struct{})
	go func() {
		defer close(over)
		runtime.LockOSThread() // without an unlock, the thread ends with the goroutine
		p, err = StartApart(exec.Command("sleep", "60"))
	}()
	<-over
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	select {
	case <-p.Done():
		t.Error("the process has ended with the thread")
	case <-time.After(200 * time.Millisecond):
	}
}
