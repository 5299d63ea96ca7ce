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

// A Process is a process that has taken over from this one.
type Process struct {
	PID   int
	Build Build
}

// A ReplacedError says that another process has taken over, and that only that process can do what was asked.
type ReplacedError struct{ By Process }

func (e *ReplacedError) Error() string {
	return fmt.Sprintf("process %d has taken over already; this process only serves its remaining connections",
		e.By.PID)
}

// An Attempt tries to let another process take over. The Attempt calls commit when that process serves. If commit
// fails, the Attempt must undo everything; otherwise it must not fail any more. ctx is the context of the caller of
// Upgrade.
type Attempt func(ctx context.Context, commit func(Process) error) error

// An Upgrader records which process serves: this one, or its successor. The Upgrader runs one Attempt at a time. Once
// this process is about to end, no Attempt begins or commits.
//
// One goroutine owns the state. That goroutine waits only for requests, so all methods except Upgrade return at once.
type Upgrader struct {
	attempt  Attempt
	requests chan request
	commits  chan commitment
	queries  chan chan<- *Process
	ends     chan chan<- *Process
	replaced chan struct{} // closed when an Attempt has succeeded
	done     chan struct{} // closed when run has returned

	by *Process // the process that has taken over, or nil; owned by run until done is closed, and constant after that
}

// A request asks for an upgrade. The channel result must have a buffer of one.
type request struct {
	ctx    context.Context
	result chan<- error
}

// A commitment asks whether a process may take over. The channel result must have a buffer of one.
type commitment struct {
	to     Process
	result chan<- error
}

// NewUpgrader returns an Upgrader for a serving process. The caller must finally call End.
func NewUpgrader(attempt Attempt) *Upgrader {
	u := &Upgrader{
		attempt: attempt, requests: make(chan request), commits: make(chan commitment),
		queries: make(chan chan<- *Process), ends: make(chan chan<- *Process),
		replaced: make(chan struct{}), done: make(chan struct{}),
	}
	go u.run()
	return u
}

// Upgrade runs the Attempt, and returns when it has ended. If Upgrade returns nil, another process serves; otherwise
// this process continues. Upgrade returns the error of the Attempt, ErrInProgress if another Attempt is running, a
// *ReplacedError, or ErrEnding.
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

// End prevents any later takeover. End returns the process that has taken over, or nil.
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

// Done returns a channel that is closed when End has been called and no Attempt is running.
func (u *Upgrader) Done() <-chan struct{} { return u.done }

// run owns the state. run returns when End has been called and no Attempt is running.
func (u *Upgrader) run() {
	defer close(u.done)
	var finished chan error // receives the result of the running Attempt; nil if none is running
	var result chan<- error // the result channel of that Attempt's caller
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
		u.commits <- commitment{to, result} // run receives at least until the Attempt ends
		return <-result
	})
}

// refusal returns the error of an upgrade when this process is replaced or about to end. Only run may call it, or any
// goroutine after run has ended.
func (u *Upgrader) refusal() error {
	if u.by != nil {
		return &ReplacedError{*u.by}
	}
	return ErrEnding
}
