package upgrade

import (
	"context"
	"errors"
	"fmt"
)

// Errors of [Upgrader.Upgrade].
var (
	ErrInProgress = errors.New("an upgrade is in progress")
	ErrEnding     = errors.New("this process is about to end")
)

// A Process is one that has taken over from this one.
type Process struct {
	PID   int
	Build Build
}

// A ReplacedError is the error of what only the process that serves can do, when another process has taken over.
type ReplacedError struct{ By Process }

func (e *ReplacedError) Error() string {
	return fmt.Sprintf("process %d has taken over already; this one only serves what connections it still has",
		e.By.PID)
}

// An Attempt tries to have another process take over. It calls commit when that process serves. After an error of
// commit it has to undo everything; after nil it may not fail any more. ctx is that of the caller of Upgrade.
type Attempt func(ctx context.Context, commit func(Process) error) error

// An Upgrader says which process serves: this one, or one that has taken over. It runs one Attempt at a time. When this
// process is to end, no Attempt begins any more and none commits.
//
// One goroutine owns the state. It waits for nothing but requests, so the methods return at once, except Upgrade.
type Upgrader struct {
	attempt  Attempt
	requests chan request
	commits  chan commitment
	queries  chan chan<- *Process
	ends     chan chan<- *Process
	replaced chan struct{} // closed when an Attempt has succeeded
	done     chan struct{} // closed when run has returned

	by *Process // who has taken over; nil: nobody. It is run's until done is closed, and constant then
}

// A request asks for an upgrade. Its result has room for one.
type request struct {
	ctx    context.Context
	result chan<- error
}

// A commitment asks whether a process may take over. Its result has room for one.
type commitment struct {
	to     Process
	result chan<- error
}

// NewUpgrader returns an Upgrader for a process that serves. The caller has to call End at last.
func NewUpgrader(attempt Attempt) *Upgrader {
	u := &Upgrader{
		attempt: attempt, requests: make(chan request), commits: make(chan commitment),
		queries: make(chan chan<- *Process), ends: make(chan chan<- *Process),
		replaced: make(chan struct{}), done: make(chan struct{}),
	}
	go u.run()
	return u
}

// Upgrade runs the Attempt, and returns when it has ended. If it succeeded, another process serves. Otherwise this
// process goes on. Upgrade returns the error of the Attempt, ErrInProgress if another one runs, a *ReplacedError, or
// ErrEnding.
func (u *Upgrader) Upgrade(ctx context.Context) error {
	result := make(chan error, 1)
	select {
	case u.requests <- request{ctx, result}:
		return <-result
	case <-u.done:
		return u.refusal()
	}
}

// Successor returns the process that has taken over, or nil.
func (u *Upgrader) Successor() *Process { return u.ask(u.queries) }

// End has no other process take over from now on. It returns the one that has, or nil.
func (u *Upgrader) End() *Process { return u.ask(u.ends) }

func (u *Upgrader) ask(questions chan<- chan<- *Process) *Process {
	answer := make(chan *Process, 1)
	select {
	case questions <- answer:
		return <-answer
	case <-u.done:
		return u.by
	}
}

// Replaced returns a channel that is closed when another process serves and the Attempt has ended.
func (u *Upgrader) Replaced() <-chan struct{} { return u.replaced }

// Done returns a channel that is closed when End has been called and no Attempt runs any more.
func (u *Upgrader) Done() <-chan struct{} { return u.done }

// run owns the state, until the process is to end and no Attempt runs any more.
func (u *Upgrader) run() {
	defer close(u.done)
	var finished chan error // the end of the Attempt that runs; nil: none runs
	var result chan<- error // its caller's
	for ending := false; !ending || finished != nil; {
		select {
		case r := <-u.requests:
			switch {
			case finished != nil && u.by == nil:
				r.result <- ErrInProgress
			case u.by != nil || ending:
				r.result <- u.refusal()
			default:
				finished, result = make(chan error, 1), r.result
				go u.try(r.ctx, finished)
			}
		case c := <-u.commits:
			if ending {
				c.result <- ErrEnding
				continue
			}
			u.by = &c.to
			c.result <- nil
		case answer := <-u.queries:
			answer <- u.by
		case answer := <-u.ends:
			ending = true
			answer <- u.by
		case err := <-finished:
			finished = nil
			if err == nil {
				close(u.replaced)
			}
			result <- err
		}
	}
}

// try runs the Attempt.
func (u *Upgrader) try(ctx context.Context, finished chan<- error) {
	finished <- u.attempt(ctx, func(to Process) error {
		result := make(chan error, 1)
		u.commits <- commitment{to, result} // run goes on at least until the Attempt ends
		return <-result
	})
}

// refusal is the error of an upgrade of a process that is replaced or about to end. It is called by run, or after its
// end.
func (u *Upgrader) refusal() error {
	if u.by != nil {
		return &ReplacedError{*u.by}
	}
	return ErrEnding
}
