package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// lictor runs a command and returns its output. The command must end with the exit code.
func lictor(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errors bytes.Buffer
	if got := Main(args, console{in: strings.NewReader(""), out: &out, err: &errors}); got != code {
		t.Errorf("%v: got exit code %d, want %d\n%s%s", args, got, code, &out, &errors)
	}
	return out.String(), errors.String()
}

// prints runs a command and fails unless its output has each of the texts.
func prints(t *testing.T, args []string, texts ...string) string {
	t.Helper()
	out, _ := lictor(t, exitOK, args...)
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("%v: no %q in:\n%s", args, text, out)
		}
	}
	return out
}

// equal reports an error if two texts differ.
func equal(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// await waits until check returns nil.
func await(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testproc.Patience)
	defer cancel()
	if err := testproc.Poll(ctx, check); err != nil {
		t.Fatalf("waited for %s: %v", what, err)
	}
}

// A fakeLictor answers the admin API with a test's answers. It is for states that a running lictor does not reach on
// demand.
type fakeLictor struct {
	address string // value of -admin

	mu      sync.Mutex // guards the fields below while requests come
	answers map[string]any
	asked   []string
}

// answer changes an answer.
func (f *fakeLictor) answer(key string, answer any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[key] = answer
}

// newFakeLictor starts a fakeLictor that ends with the test. The keys of answers are method and path, with or without
// the query. An answer is an *admin.APIError, a string to send as it is, nil to close the connection, or a value to
// send as JSON.
func newFakeLictor(t *testing.T, answers map[string]any) *fakeLictor {
	t.Helper()
	f := &fakeLictor{answers: answers}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.address = server.Listener.Addr().String()
	return f
}

func (f *fakeLictor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Method + " " + r.URL.RequestURI()
	f.mu.Lock()
	f.asked = append(f.asked, key)
	answer, ok := f.answers[key]
	if !ok {
		answer, ok = f.answers[r.Method+" "+r.URL.Path]
	}
	f.mu.Unlock()
	if !ok {
		answer = &admin.APIError{Code: http.StatusNotFound, Text: "there is no " + r.URL.Path}
	}
	switch answer := answer.(type) {
	case nil:
		panic(http.ErrAbortHandler)
	case *admin.APIError:
		w.WriteHeader(answer.Code)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": answer.Text})
	case string:
		_, _ = io.WriteString(w, answer)
	default:
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// requests returns the requests so far, without the status request that each command sends first.
func (f *fakeLictor) requests() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range f.asked {
		if key != "GET /v1/status" {
			all = append(all, key)
		}
	}
	return all
}

var errDiskFull = errors.New("no space left on device")

// A fullDisk refuses every write.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errDiskFull }
