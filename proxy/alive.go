package proxy

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Alive returns nil if all that clients depend on moves: the event loops, or the goroutines that take clients and the
// locks that they share, and the lock of the Proxier. Otherwise its error says in a line each what has not moved for
// patience. It waits no longer than that, and at once says so of what has not answered to an earlier call. However
// often it is called, what is stuck costs no more than one goroutine.
//
// Some things are not waited for, and found to be stuck by a later call only. What takes clients by a goroutine of its
// own (EnginePortable) is stuck if two calls, patience or more apart, find it busy with the same client. The lock of
// the Proxier is stuck if it cannot be had for four times patience: to apply tens of thousands of listeners takes
// seconds.
func (p *Proxier) Alive(patience time.Duration) error {
	var questions []question
	for _, one := range p.engine.pulses() {
		questions = append(questions, one.ask())
	}
	var errs []error
	for _, q := range questions {
		if !q.answeredWithin(patience) {
			errs = append(errs, q.unanswered())
		}
	}
	if q := p.pulse.ask(); time.Since(q.asked) >= lockPatience*patience && !q.answeredWithin(0) {
		errs = append(errs, q.unanswered())
	}
	return errors.Join(append(errs, p.engine.stuck(patience)...)...)
}

// lockPatience is how many times longer than anything else the lock of the Proxier may take.
const lockPatience = 4

// A pulse asks something whether it still moves. At most one question is under way; whoever asks meanwhile waits for
// the same answer. The methods may be called concurrently.
type pulse struct {
	what    string                // for people, such as "event loop 0"
	request func(answered func()) // has answered called when the thing moves, and does not wait for that

	mu      sync.Mutex
	pending *question // nil: no question is under way
}

// A question is one that a pulse has asked.
type question struct {
	what     string
	asked    time.Time
	answered chan struct{} // closed by the answer
}

// ask returns the question that is under way, or a new one.
func (p *pulse) ask() question {
	p.mu.Lock()
	if q := p.pending; q != nil {
		p.mu.Unlock()
		return *q
	}
	q := &question{what: p.what, asked: time.Now(), answered: make(chan struct{})}
	p.pending = q
	p.mu.Unlock() // before the request: the answer may come at once
	p.request(func() {
		p.mu.Lock()
		p.pending = nil
		p.mu.Unlock()
		close(q.answered)
	})
	return *q
}

// answeredWithin reports whether the answer has come, or comes before patience has passed since the question.
func (q *question) answeredWithin(patience time.Duration) bool {
	over := time.NewTimer(patience - time.Since(q.asked))
	defer over.Stop()
	select {
	case <-q.answered:
		return true
	case <-over.C:
	}
	select {
	case <-q.answered: // both, for this process itself has stood still
		return true
	default:
		return false
	}
}

// unanswered is the error of a question without an answer.
func (q *question) unanswered() error {
	return fmt.Errorf("%s: no answer for %v", q.what, time.Since(q.asked).Round(time.Millisecond))
}

// lockPulse asks whether a lock can be had.
func lockPulse(what string, lock sync.Locker) *pulse {
	return &pulse{what: what, request: func(answered func()) { go takeOnce(lock, answered) }}
}

func takeOnce(lock sync.Locker, taken func()) {
	lock.Lock()
	defer lock.Unlock()
	taken()
}

// A turn shows whether a goroutine is stuck that serves one client after the other. Without a client it may wait for
// ever.
type turn struct {
	what func() string // for people
	n    atomic.Uint64 // odd while the goroutine is busy with a client

	// Guarded by the lock of turns.
	seen  uint64    // n when it was last looked at
	since time.Time // when that was seen first
}

// begin and end are called by the goroutine around what it does for a client.
func (t *turn) begin() { t.n.Add(1) }
func (t *turn) end()   { t.n.Add(1) }

// turns are those of all goroutines of an engine.
type turns struct {
	mu  sync.Mutex
	all map[*turn]bool
}

// add returns a turn for a goroutine that begins.
func (ts *turns) add(what func() string) *turn {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.all == nil {
		ts.all = map[*turn]bool{}
	}
	t := &turn{what: what}
	ts.all[t] = true
	return t
}

// remove is for a goroutine that has ended.
func (ts *turns) remove(t *turn) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.all, t)
}

// stuck returns an error for each goroutine that was busy with the same client patience ago.
func (ts *turns) stuck(patience time.Duration) (errs []error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	now := time.Now()
	for t := range ts.all {
		n := t.n.Load()
		if n != t.seen || n%2 == 0 {
			t.seen, t.since = n, now
		} else if still := now.Sub(t.since); still >= patience {
			errs = append(errs, fmt.Errorf("%s: busy with one client for %v", t.what(), still.Round(time.Millisecond)))
		}
	}
	return errs
}
