package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// An OverdueError says that the agent cut off a blocking query instead of answering it at the end of its wait. An agent
// does that if its write_timeout is shorter than the wait.
type OverdueError struct {
	After time.Duration // time since the query was sent
	Err   error
}

func (e *OverdueError) Error() string {
	return fmt.Sprintf("the agent cut the query off after %v, when the answer was due: %v",
		e.After.Round(time.Millisecond), e.Err)
}
func (e *OverdueError) Unwrap() error { return e.Err }

// errResent ends a blocking query that the transport sends again because its connection was cut off.
var errResent = errors.New("the agent closed the connection")

// watchResent returns a context for a blocking query, and a function to release it. If a reused connection breaks, the
// transport sends the query again by itself. If the query's wait is over then, watchResent ends the context, so that
// the caller learns of the broken connection.
func watchResent(ctx context.Context, wait time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	begun := time.Now()
	var sent atomic.Bool
	got := func(httptrace.GotConnInfo) {
		if sent.Swap(true) && time.Since(begun) >= wait {
			cancel(errResent)
		}
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: got}), func() { cancel(nil) }
}

// A streamError has the fields of net/http's error for a reset HTTP/2 stream, so that errors.As can convert that error.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return fmt.Sprintf("stream %d: code %d", e.StreamID, e.Code) }

const (
	// resetInternal is the code with which a Go server resets an HTTP/2 stream at its write timeout.
	resetInternal = 2

	// soonest is the minimum age of a query for which such a reset counts as a write timeout.
	soonest = 500 * time.Millisecond
)

// overdue returns an *OverdueError if the query was cut off when the answer was due, or by a reset stream. Otherwise it
// returns err. The context must come from watchResent.
func overdue(ctx context.Context, err error, after, wait time.Duration) error {
	var stream streamError
	switch {
	case context.Cause(ctx) == errResent:
		return &OverdueError{after, errResent}
	case ctx.Err() != nil:
		return err
	case after >= wait && Cause(err) == cutOff,
		after >= soonest && errors.As(err, &stream) && stream.Code == resetInternal:
		return &OverdueError{after, err}
	}
	return err
}
