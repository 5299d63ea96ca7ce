//go:build unix

package daemon

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// Deprecated syntax is logged with its line, at the start and at each reload.
func TestWarningsOfAConfigurationAreLogged(t *testing.T) {
	old := "upgrade_grace = \"0s\"\n" + oneService
	s := serveConfiguration(t, old, nil)
	s.mustReload("\n"+old, "nothing to change")
	s.stop()
	for _, line := range []string{":1: ", ":2: "} {
		if want := s.path + line + "Old spelling: upgrade_grace: write"; strings.Count(s.log.String(), want) != 1 {
			t.Errorf("want once %q in the log:\n%s", want, s.log)
		}
	}
}

// A shutdown_grace of "0s" cuts connections at once, and the log shows it.
func TestNoShutdownGraceCutsAtOnce(t *testing.T) {
	s := serveConfiguration(t, "shutdown_grace = \"0s\"\n"+oneService, nil)
	s.stop()
	if !strings.Contains(s.log.String(), "grace=0s") {
		t.Errorf("the log does not say how long connections have:\n%s", s.log)
	}
}

// A reload that hangs on a file server delays neither a probe nor a signal.
func TestReloadThatHangsHoldsUpNobody(t *testing.T) {
	reading, never := make(chan struct{}), make(chan struct{})
	s := serveConfiguration(t, oneService, func(s *served) {
		s.Daemon.load = func() (*config.Config, config.Diagnostics) {
			close(reading)
			<-never
			return config.Load(nil, config.Options{}) // returns an error
		}
	})
	defer close(never)
	s.signals <- syscall.SIGHUP
	testproc.Receive(t, "the reload", reading)
	if err := s.healthy(); err != nil {
		t.Errorf("not healthy: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.Reload(ctx); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("another reload: got %v", err)
	}
	if _, err := s.Upgrade(ctx); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("an upgrade: got %v", err)
	}
	s.signals <- syscall.SIGHUP
	s.signals <- syscall.SIGUSR2
	s.signals <- syscall.SIGTERM
	if err := testproc.Receive(t, "the end", s.end); err != nil {
		t.Errorf("%v:\n%s", err, s.log)
	}
}

// An upgrade that hangs does not delay a signal. It hangs if the program cannot be started, or never becomes ready.
func TestUpgradeThatHangsHoldsUpNobody(t *testing.T) {
	hangs, never, committed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	s := serveConfiguration(t, oneService, func(s *served) {
		s.upgrades.End()
		s.upgrades = upgrade.NewUpgrader(func(_ context.Context, commit func(upgrade.Process) error) error {
			close(hangs)
			<-never
			committed <- commit(upgrade.Process{})
			return errors.New("it has hung")
		})
	})
	s.signals <- syscall.SIGUSR2
	testproc.Receive(t, "the upgrade", hangs)
	if err := s.healthy(); err != nil {
		t.Errorf("not healthy: %v", err)
	}
	if _, err := s.Upgrade(t.Context()); !errors.Is(err, upgrade.ErrInProgress) {
		t.Errorf("another upgrade: got %v", err)
	}
	s.signals <- syscall.SIGUSR2
	s.signals <- syscall.SIGTERM
	if err := testproc.Receive(t, "the end", s.end); err != nil {
		t.Errorf("%v:\n%s", err, s.log)
	}
	close(never)
	if err := testproc.Receive(t, "its commit", committed); !errors.Is(err, upgrade.ErrEnding) {
		t.Errorf("the process was replaced nevertheless: %v", err)
	}
}

// Signals end a start that hangs: one signal after startGrace, two signals at once.
func TestStartThatHangs(t *testing.T) {
	for name, signals := range map[string][]os.Signal{
		"one": {syscall.SIGHUP, syscall.SIGTERM},
		"two": {os.Interrupt, os.Interrupt},
	} {
		t.Run(name, func(t *testing.T) {
			all, end, never := make(chan os.Signal, 8), make(chan error, 1), make(chan struct{})
			defer close(never)
			for _, s := range signals {
				all <- s
			}
			go func() {
				end <- run(nil, all, func(context.Context) (*Daemon, error) {
					<-never
					return nil, errors.New("never mind")
				})
			}()
			if err := testproc.Receive(t, "the end", end); err == nil ||
				!strings.Contains(err.Error(), "the start did not end in time") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A signal during a successful start stops the daemon after the start.
func TestSignalDuringTheStart(t *testing.T) {
	s := serveConfiguration(t, oneService, func(s *served) { s.signals <- syscall.SIGTERM })
	if err := testproc.Receive(t, "the end", s.end); err != nil || !strings.Contains(s.log.String(),
		"stopping: signal=terminated") {
		t.Errorf("%v:\n%s", err, s.log)
	}
}

// A process that no longer handles signals is not healthy.
func TestDeafProcessIsNotHealthy(t *testing.T) {
	hold := make(chan struct{})
	s := serveConfiguration(t, oneService, func(s *served) {
		go func() { // during the start, no goroutine handles signals
			defer close(hold)
			if err := s.healthy(); err != nil {
				t.Errorf("during the start: got %v", err)
			}
			s.obeying.Store(true)
			if err := s.healthy(); !errors.Is(err, errDeaf) {
				t.Errorf("got %v", err)
			}
		}()
		<-hold
	})
	s.signals <- syscall.SIGTERM
	testproc.Receive(t, "the end", s.end)
}
