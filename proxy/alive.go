package proxy

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Alive returns nil if everything that clients depend on makes progress. These parts are the lock of the Proxier and
// the event loops; without event loops, the goroutines that accept clients and their shared locks. The error of Alive
// has a line for each part that has made no progress for patience. Alive waits no longer than patience. Alive reports a
// part at once if that part has not answered an earlier call. However often Alive is called, a stuck part costs at most
// one goroutine.
//
// Some parts are not waited for, so only a later call finds them stuck. EnginePortable accepts clients in goroutines of
// their own. A goroutine of EnginePortable is stuck if two calls, at least patience apart, find it busy with the same
// client. The lock of the Proxier is stuck if it cannot be taken for four times patience. The limit is that long
// because Apply takes seconds for tens of thousands of listeners.
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

// lockPatience is how many times patience the lock of the Proxier may be held.
const lockPatience = 4

// A pulse asks one part of the engine whether it makes progress. At most one question is open at a time; later callers
// wait for the same answer. The methods may be called concurrently.
type pulse struct {
	what    string                // name of the part for people, such as "event loop 0"
	request func(answered func()) // makes the part call answered when it makes progress; does not block

	mu      sync.Mutex
	pending *question // nil if no question is open
}

// A question is one that a pulse has asked.
type question struct {
	what     string
	asked    time.Time
	answered chan struct{} // closed by the answer
}

// ask returns the open question, or asks a new one.
func (p *pulse) ask() question {
	p.mu.Lock()
	if q := p.pending; q != nil {
		p.mu.Unlock()
		return *q
	}
	q := &question{what: p.what, asked: time.Now(), answered: make(chan struct{})}
	p.pending = q
	p.mu.Unlock() // before the request, because the answer may come at once
	p.request(func() {
		p.mu.Lock()
		p.pending = nil
		p.mu.Unlock()
		close(q.answered)
	})
	return *q
}

// answeredWithin reports whether the answer comes before patience has passed since the question.
func (q *question) answeredWithin(patience time.Duration) bool {
	over := time.NewTimer(patience - time.Since(q.asked))
	defer over.Stop()
	select {
	case <-q.answered:
		return true
	case <-over.C:
	}
	select {
	case <-q.answered: // both channels are ready if this process itself was suspended
		return true
	default:
		return false
	}
}

// unanswered returns the error of a question without an answer.
func (q *question) unanswered() error {
	return fmt.Errorf("%s: no answer for %v", q.what, time.Since(q.asked).Round(time.Millisecond))
}

// lockPulse returns a pulse that asks whether a lock can be taken.
func lockPulse(what string, lock sync.Locker) *pulse {
	return &pulse{what: what, request: func(answered func()) { go takeOnce(lock, answered) }}
}

func takeOnce(lock sync.Locker, taken func()) {
	lock.Lock()
	defer lock.Unlock()
	taken()
}

// A turn shows whether a goroutine that serves one client after the other is stuck. Between clients the goroutine may
// wait without limit.
type turn struct {
	what func() string // returns the goroutine's name for people
	n    atomic.Uint64 // odd while the goroutine is busy with a client

	// Guarded by the lock of turns.
	seen  uint64    // value of n at the last check
	since time.Time // when a check first saw the value in seen
}

// begin and end are called by the goroutine before and after it serves a client.
func (t *turn) begin() { t.n.Add(1) }
func (t *turn) end()   { t.n.Add(1) }

// turns holds the turns of all goroutines of an engine.
type turns struct {
	mu  sync.Mutex
	all map[*turn]bool
}

// add returns a turn for a new goroutine.
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

// remove removes the turn of a goroutine that has ended.
func (ts *turns) remove(t *turn) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.all, t)
}

// stuck returns an error for each goroutine that has been busy with the same client for patience.
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
