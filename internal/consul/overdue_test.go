package consul

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"
)

// A query is overdue only if it was cut off when its answer was due. A query that the caller has cancelled is not
// overdue.
func TestOverdue(t *testing.T) {
	live := context.Background()
	ended, end := context.WithCancel(live)
	end()
	resent, resend := context.WithCancelCause(live)
	resend(errResent)
	reset := func(code uint32) error { return streamError{StreamID: 1, Code: code} }
	const wait = 3 * time.Second
	for _, tt := range []struct {
		name  string
		ctx   context.Context
		err   error
		after time.Duration
		want  bool
	}{
		{"cut off when due", live, io.EOF, wait, true},
		{"cut off later", live, syscall.ECONNRESET, wait + time.Second, true},
		{"cut off before", live, io.EOF, wait - 1, false},
		{"cut off, but the caller has ended it", ended, io.EOF, wait, false},
		{"refused when due", live, syscall.ECONNREFUSED, wait, false},
		{"answered when due", live, &StatusError{Code: 500}, wait, false},
		{"timeout", live, &TimeoutError{wait}, wait, false},
		{"stream reset", live, reset(resetInternal), soonest, true},
		{"stream reset at once", live, reset(resetInternal), soonest - 1, false},
		{"stream cancelled", live, reset(8), wait, false},
		{"stream reset, but the caller has ended it", ended, reset(resetInternal), wait, false},
		{"sent again", resent, context.Canceled, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := overdue(tt.ctx, tt.err, tt.after, wait)
			var late *OverdueError
			switch is := errors.As(got, &late); {
			case is != tt.want:
				t.Fatalf("got %v, want overdue: %v", got, tt.want)
			case !is && got != tt.err:
				t.Errorf("got %v, want the error as it was", got)
			case is && late.After != tt.after:
				t.Errorf("after %v, want %v", late.After, tt.after)
			case is && tt.ctx != resent && !errors.Is(got, tt.err):
				t.Errorf("%v does not wrap %v", got, tt.err)
			}
		})
	}
}

// errors.As recognizes a stream that Go's HTTP/2 server has reset.
func TestResetStreamIsOverdue(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	answer, err := s.Client().Get(s.URL)
	if err == nil {
		answer.Body.Close()
		t.Fatal("got an answer, want a reset")
	}
	var late *OverdueError
	if got := overdue(context.Background(), err, soonest, time.Minute); !errors.As(got, &late) {
		t.Errorf("got %T: %v, want an overdue query", got, got)
	}
}
