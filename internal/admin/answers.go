package admin

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// answers makes costly answers, few at once: however many are asked for, they compete with the event loops for few
// processors. Requests for the same answer that wait for their turn at the same time share one. An answer is sent when
// it is whole, so a client that reads slowly holds up no other.
//
// Safe for concurrent use.
type answers struct {
	turns    *semaphore.Weighted // first come, first served
	patience time.Duration       // of a request that waits for its turn
	refused  atomic.Int64        // requests whose turn did not come

	mu      sync.Mutex
	waiting map[string]*promise // for their turn, by what is asked for
}

// A promise is an answer that is yet to be made.
type promise struct {
	done   chan struct{} // closed when answer is set
	answer *answer       // nil: there is none
}

var errBusy = errors.New("too many costly requests are under way: try again")

func newAnswers(atOnce int64, patience time.Duration) *answers {
	return &answers{turns: semaphore.NewWeighted(atOnce), patience: patience, waiting: map[string]*promise{}}
}

// shared returns a handler that has h answer, once for all who ask for the same URL while h has not begun yet. What h
// answers must depend on the URL alone.
func (a *answers) shared(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a.serve(w, r, r.URL.RequestURI(), func() *answer { return record(h, r) })
	}
}

// serve answers r with what do returns, or another call of do for the same key that begins after this call of serve.
func (a *answers) serve(w http.ResponseWriter, r *http.Request, key string, do func() *answer) {
	p, mine := a.promise(key)
	if mine {
		a.fulfil(p, key, do)
	}
	select {
	case <-p.done:
	case <-r.Context().Done():
		return
	}
	if p.answer == nil {
		a.refused.Add(1)
		refuse(w, http.StatusServiceUnavailable, errBusy)
		return
	}
	p.answer.send(w)
}

// promise returns the answer that is to be made for key. If it is the caller's to make, mine is true.
func (a *answers) promise(key string) (p *promise, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.waiting[key]; p != nil {
		return p, false
	}
	p = &promise{done: make(chan struct{})}
	a.waiting[key] = p
	return p, true
}

// fulfil makes the answer of p when its turn comes. It does not end with the request: others may wait for the answer
// too.
func (a *answers) fulfil(p *promise, key string, do func() *answer) {
	defer close(p.done)
	ctx, cancel := context.WithTimeout(context.Background(), a.patience)
	defer cancel()
	err := a.turns.Acquire(ctx, 1)
	a.mu.Lock()
	delete(a.waiting, key) // who asks from now on may want to know what is newer
	a.mu.Unlock()
	if err != nil {
		return
	}
	defer a.turns.Release(1)
	p.answer = do()
}

// do calls f when its turn comes, unless ctx ends before.
func (a *answers) do(ctx context.Context, f func()) {
	if a.turns.Acquire(ctx, 1) != nil {
		return
	}
	defer a.turns.Release(1)
	f()
}

// An answer is kept as a whole. It implements http.ResponseWriter. When it is made, it may be sent any number of times.
type answer struct {
	code   int
	header http.Header
	body   bytes.Buffer
}

// record returns what h answers to r, whether the client still wants it or not.
func record(h http.HandlerFunc, r *http.Request) *answer {
	a := &answer{code: http.StatusOK, header: http.Header{}}
	h(a, r.WithContext(context.WithoutCancel(r.Context())))
	return a
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(code int)        { a.code = code }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

func (a *answer) send(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(a.body.Len()))
	w.WriteHeader(a.code)
	_, _ = w.Write(a.body.Bytes()) // what fails here is the client's connection
}
