package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// An OverdueError says that the agent cut off a blocking query instead of answering it when its wait was over. That is
// what an agent does whose write_timeout is shorter than the wait.
type OverdueError struct {
	After time.Duration // since the query was sent
	Err   error
}

func (e *OverdueError) Error() string {
	return fmt.Sprintf("cut off after %v, when the answer was due: %v", e.After.Round(time.Millisecond), e.Err)
}
func (e *OverdueError) Unwrap() error { return e.Err }

// errResent ends a blocking query that the transport sends again because its connection was cut off.
var errResent = errors.New("the agent closed the connection")

// watchResent returns a context for a blocking query, and a function to free it. The transport sends a query again by
// itself if a connection that was used before breaks. The context ends then if the wait was over, so that the caller
// learns of it.
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

// A streamError has the fields of net/http's error for a reset stream of HTTP/2, which errors.As converts.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return fmt.Sprintf("stream %d: code %d", e.StreamID, e.Code) }

const (
	// resetInternal is the code with which Go's server resets a stream of HTTP/2 at its write timeout.
	resetInternal = 2

	// soonest is the shortest time after which such a reset counts as that.
	soonest = 500 * time.Millisecond
)

// overdue returns err, as an *OverdueError if it is of a query that was cut off as late as the answer was due, or
// by a reset stream. ctx is from watchResent.
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
