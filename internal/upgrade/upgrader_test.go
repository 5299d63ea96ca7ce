package upgrade

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A scripted Attempt does what the test sends it.
type scripted struct {
	began   chan context.Context
	commits chan Process // process to commit
	commit  chan error   // result of the commit
	end     chan error   // result of the Attempt
}

func newScripted(t *testing.T) (*Upgrader, *scripted) {
	s := &scripted{make(chan context.Context, 1), make(chan Process), make(chan error, 1), make(chan error)}
	u := NewUpgrader(func(ctx context.Context, commit func(Process) error) error {
		s.began <- ctx
		for {
			select {
			case to := <-s.commits:
				s.commit <- commit(to)
			case err := <-s.end:
				return err
			}
		}
	})
	t.Cleanup(func() {
		u.End()
		testproc.Receive(t, "the end of the goroutine", u.Done())
	})
	return u, s
}

// start begins an upgrade, and returns the channel for its result.
func (s *scripted) start(t *testing.T, u *Upgrader) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() { result <- u.Upgrade(t.Context()) }()
	testproc.Receive(t, "the attempt", s.began)
	return result
}

func TestSecondUpgradeIsToldThatOneIsInProgress(t *testing.T) {
	u, s := newScripted(t)
	first := s.start(t, u)
	for range 3 {
		if err := u.Upgrade(t.Context()); !errors.Is(err, ErrInProgress) {
			t.Fatalf("got %v, want %v", err, ErrInProgress)
		}
	}
	bad := errors.New("the program does not start")
	s.end <- bad
	if err := testproc.Receive(t, "the first result", first); !errors.Is(err, bad) {
		t.Errorf("got %v, want %v", err, bad)
	}
	if u.Successor() != nil || isClosed(u.Replaced()) || isClosed(u.Done()) {
		t.Error("a failed attempt has changed something")
	}
	again := s.start(t, u)
	s.end <- bad
	if err := testproc.Receive(t, "the next result", again); !errors.Is(err, bad) {
		t.Errorf("the next attempt: got %v", err)
	}
}

func TestUpgradeThatSucceeds(t *testing.T) {
	u, s := newScripted(t)
	result := s.start(t, u)
	next := Process{PID: 7, Build: Build{Version: "v2", Revision: "abc"}}
	s.commits <- next
	if err := testproc.Receive(t, "the commit", s.commit); err != nil {
		t.Fatal(err)
	}
	if by := u.Successor(); by == nil || *by != next {
		t.Errorf("after the commit: got %v, want %v", by, next)
	}
	if isClosed(u.Replaced()) {
		t.Error("replaced before the attempt has ended")
	}
	s.end <- nil
	if err := testproc.Receive(t, "the result", result); err != nil {
		t.Error(err)
	}
	testproc.Receive(t, "the replacement", u.Replaced())

	var replaced *ReplacedError
	if err := u.Upgrade(t.Context()); !errors.As(err, &replaced) || replaced.By != next {
		t.Errorf("another upgrade: got %v", err)
	}
	if by := u.End(); by == nil || *by != next {
		t.Errorf("at the end: got %v, want %v", by, next)
	}
	testproc.Receive(t, "the end", u.Done())
	if err := u.Upgrade(t.Context()); !errors.As(err, &replaced) || replaced.By.PID != 7 {
		t.Errorf("an upgrade after the end: got %v", err)
	}
	if by := u.Successor(); by == nil || *by != next {
		t.Errorf("after the end: got %v, want %v", by, next)
	}
}

func TestProcessThatIsToEndIsNotReplaced(t *testing.T) {
	u, s := newScripted(t)
	result := s.start(t, u)
	if by := u.End(); by != nil {
		t.Errorf("got %v, though nothing was committed", by)
	}
	if isClosed(u.Done()) {
		t.Error("done although an attempt is running")
	}
	s.commits <- Process{PID: 7}
	if err := testproc.Receive(t, "the commit", s.commit); !errors.Is(err, ErrEnding) {
		t.Errorf("commit: got %v, want %v", err, ErrEnding)
	}
	s.end <- ErrEnding
	if err := testproc.Receive(t, "the result", result); !errors.Is(err, ErrEnding) {
		t.Errorf("got %v, want %v", err, ErrEnding)
	}
	testproc.Receive(t, "the end", u.Done())
	if err := u.Upgrade(t.Context()); !errors.Is(err, ErrEnding) {
		t.Errorf("an upgrade after the end: got %v", err)
	}
	if u.Successor() != nil || u.End() != nil || isClosed(u.Replaced()) {
		t.Error("a successor without a commit")
	}
}

// A signal may end the process while a committed attempt still releases things.
func TestEndWhileTheCommittedAttemptLetsGo(t *testing.T) {
	u, s := newScripted(t)
	result := s.start(t, u)
	s.commits <- Process{PID: 7}
	testproc.Receive(t, "the commit", s.commit)
	if by := u.End(); by == nil || by.PID != 7 {
		t.Errorf("got %v", by)
	}
	s.end <- nil
	if err := testproc.Receive(t, "the result", result); err != nil {
		t.Error(err)
	}
	testproc.Receive(t, "the replacement", u.Replaced())
	testproc.Receive(t, "the end", u.Done())
}

func TestAttemptGetsTheContextOfItsCaller(t *testing.T) {
	u, s := newScripted(t)
	type key struct{}
	go func() { _ = u.Upgrade(context.WithValue(t.Context(), key{}, "mine")) }()
	if ctx := testproc.Receive(t, "the attempt", s.began); ctx.Value(key{}) != "mine" {
		t.Error("it is another one")
	}
	s.end <- errors.New("enough")
}

// For any order of upgrades, commits and the end, at most one process takes over, and all methods agree which.
func TestUpgraderUnderLoad(t *testing.T) {
	for range 50 {
		var committed, attempts atomic.Int64
		u := NewUpgrader(func(_ context.Context, commit func(Process) error) error {
			n := int(attempts.Add(1))
			if n%3 == 1 {
				return errors.New("failed")
			}
			err := commit(Process{PID: n})
			if err == nil {
				committed.Add(1)
			}
			return err
		})
		var all sync.WaitGroup
		var succeeded atomic.Int64
		for range 8 {
			all.Go(func() {
				for range 4 {
					if u.Upgrade(t.Context()) == nil {
						succeeded.Add(1)
					}
				}
			})
		}
		var by *Process
		all.Go(func() { by = u.End() })
		all.Wait()
		testproc.Receive(t, "the end", u.Done())
		last := u.Successor()
		if committed.Load() > 1 || succeeded.Load() != committed.Load() || (last != nil) != (committed.Load() == 1) {
			t.Fatalf("%d committed, %d succeeded, successor %v", committed.Load(), succeeded.Load(), last)
		}
		if by != nil && *by != *last {
			t.Fatalf("End says %v, Successor %v", by, last)
		}
		if isClosed(u.Replaced()) != (last != nil) {
			t.Fatalf("successor %v, replaced: %v", last, isClosed(u.Replaced()))
		}
	}
}
