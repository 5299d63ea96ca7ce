package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func askFor(ctx context.Context, h http.HandlerFunc, url string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h(w, httptest.NewRequestWithContext(ctx, http.MethodGet, url, nil))
	return w
}

// Costly answers are made one at a time, and each client gets its own answer.
func TestCostlyAnswersAreMadeInTurn(t *testing.T) {
	a := newAnswers(1, time.Minute)
	var now, crowded atomic.Int64
	h := a.shared(func(w http.ResponseWriter, r *http.Request) {
		if now.Add(1) > 1 {
			crowded.Add(1)
		}
		w.Header().Set("X-Path", r.URL.Path)
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, "made for ", r.URL.RequestURI())
		now.Add(-1)
	})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			url := fmt.Sprintf("/path?x=%d", i/2)
			w := askFor(t.Context(), h, url)
			right := w.Code == http.StatusTeapot && w.Header().Get("X-Path") == "/path"
			if !right || w.Body.String() != "made for "+url {
				t.Errorf("%s: got %d %q %v", url, w.Code, w.Body, w.Header())
			}
		})
	}
	all.Wait()
	if n := crowded.Load(); n > 0 {
		t.Errorf("%d began while others were made", n)
	}
}

// All requests that wait for the same answer share it. A request that comes after the answer has begun gets a later
// one, because the client may know of a newer change.
func TestCostlyAnswersAreSharedUntilTheyBegin(t *testing.T) {
	a := newAnswers(1, time.Minute)
	first, mine := a.promise("/a")
	if !mine {
		t.Fatal("the first has to make the answer")
	}
	if p, mine := a.promise("/a"); mine || p != first {
		t.Error("the second does not share the answer of the first")
	}
	if _, mine := a.promise("/b"); !mine {
		t.Error("another answer is shared")
	}
	a.fulfil(first, "/a", func() *answer {
		if p, mine := a.promise("/a"); !mine || p == first {
			t.Error("an answer is shared that has begun")
		}
		if a.turns.TryAcquire(1) {
			t.Error("another one can begin")
		}
		return &answer{}
	})
	if <-first.done; first.answer == nil {
		t.Error("no answer")
	}
}

// An answer is completed even if the client that asked first has gone, because other clients may wait for it.
func TestASharedAnswerOutlivesItsFirstClient(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	made := false
	askFor(ctx, newAnswers(1, time.Minute).shared(func(_ http.ResponseWriter, r *http.Request) {
		made = true
		if err := r.Context().Err(); err != nil {
			t.Errorf("its context has ended: %v", err)
		}
	}), "/a")
	if !made {
		t.Error("it is not made")
	}
}

// A request that does not get its turn in time is refused with 503. Requests of other kinds do not wait for that turn.
func TestCostlyRequestsDoNotWaitForever(t *testing.T) {
	work := []string{
		"/metrics", "/v1/status", "/v1/services", "/v1/services/web", "/v1/services/web/history", "/v1/events",
		"/v1/config",
	}
	walks, queries := []string{"/v1/connections"}, []string{"/v1/services/web/excluded"}
	none := []string{"/healthz", "/readyz", "/", "/page.js"}
	h := serve(t, Options{Config: func() any { return nil }}, "web")
	h.endpoints("web")
	for _, tt := range []struct {
		turns  *answers
		atOnce int64
		waits  []string
		others []string
	}{
		{h.work, 1, work, slices.Concat(walks, queries, none)},
		{h.walks, 1, walks, slices.Concat(work, queries, none)},
		{h.queries, 4, queries, slices.Concat(work, walks, none)},
	} {
		usual := tt.turns.patience
		tt.turns.patience = time.Nanosecond
		if err := tt.turns.turns.Acquire(t.Context(), tt.atOnce); err != nil {
			t.Fatal(err)
		}
		for _, path := range tt.waits {
			w := askFor(t.Context(), h.mux().ServeHTTP, path)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
				t.Errorf("%s: got %d %v, want 503", path, w.Code, w.Header())
			}
		}
		for _, path := range tt.others {
			if w := askFor(t.Context(), h.mux().ServeHTTP, path); w.Code != http.StatusOK {
				t.Errorf("%s: got %d, want 200", path, w.Code)
			}
		}
		if n := tt.turns.refused.Load(); n != int64(len(tt.waits)) {
			t.Errorf("%d are counted as refused, want %d", n, len(tt.waits))
		}
		tt.turns.turns.Release(tt.atOnce)
		tt.turns.patience = usual
	}
}

// Probes need no token, so they must be cheap.
func TestProbesDoNotReadCounters(t *testing.T) {
	h := serve(t, Options{}, "web", "dns")
	h.endpoints("web", "a")
	before := h.fake.count()
	for _, path := range []string{"/healthz", "/readyz"} {
		h.ask("GET", path, "")
	}
	if n := h.fake.count() - before; n != 0 {
		t.Errorf("counters were read %d times", n)
	}
}
