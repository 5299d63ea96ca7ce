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

// answers computes costly answers, only a few at once, because they compete with the event loops for the processors.
// Requests that wait for the same answer at the same time share one. An answer is sent only when it is complete, so a
// client that reads slowly delays no other client.
//
// answers is safe for concurrent use.
type answers struct {
	turns    *semaphore.Weighted // one for each answer under way; first come, first served
	patience time.Duration       // how long a request waits for its turn
	refused  atomic.Int64        // requests that waited longer than patience

	mu      sync.Mutex
	waiting map[string]*promise // promises that have not begun, by key
}

// A promise is an answer that is not computed yet.
type promise struct {
	done   chan struct{} // closed when answer is set
	answer *answer       // nil if the promise's turn did not come
}

var errBusy = errors.New("too many costly requests: try again")

func newAnswers(atOnce int64, patience time.Duration) *answers {
	return &answers{turns: semaphore.NewWeighted(atOnce), patience: patience, waiting: map[string]*promise{}}
}

// shared returns a handler that runs h once for all requests for the same URL that arrive before h begins. The answer
// of h must depend on the URL alone.
func (a *answers) shared(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a.serve(w, r, r.URL.RequestURI(), func() *answer { return record(h, r) })
	}
}

// serve answers r with the result of do. If a call for the same key is waiting for its turn, serve uses the result of
// that call.
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

// promise returns the promise for key. The caller must fulfil the promise if mine is true.
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

// fulfil waits for a turn and computes the answer of p. fulfil continues if the request ends, because other requests
// may wait for the same answer.
func (a *answers) fulfil(p *promise, key string, do func() *answer) {
	defer close(p.done)
	ctx, cancel := context.WithTimeout(context.Background(), a.patience)
	defer cancel()
	err := a.turns.Acquire(ctx, 1)
	a.mu.Lock()
	delete(a.waiting, key) // a later request needs a newer answer
	a.mu.Unlock()
	if err != nil {
		return
	}
	defer a.turns.Release(1)
	p.answer = do()
}

// do waits for a turn and calls f. do does not call f if ctx ends first.
func (a *answers) do(ctx context.Context, f func()) {
	if a.turns.Acquire(ctx, 1) != nil {
		return
	}
	defer a.turns.Release(1)
	f()
}

// An answer is a complete HTTP response in memory. The answer implements http.ResponseWriter, and may be sent any
// number of times.
type answer struct {
	code   int
	header http.Header
	body   bytes.Buffer
}

// record returns the response of h to r. record completes the response even if the client has disconnected.
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
	_, _ = w.Write(a.body.Bytes()) // an error here concerns only the client's connection
}
