package consul

import (
	"context"
	"net/http/httptrace"
	"sync"
)

// A gate lets only a few queries look for a connection at the same time. A nil gate lets all pass.
//
// Over HTTP/2 a few connections carry all queries. But a query that finds each of them full makes a new one, and so
// does every other query that comes while that one is being made. An agent that shakes hands slowly, as one with
// thousands of new queries does, would be dialled hundreds of times and refuse what is beyond its limit.
type gate chan struct{}

// gateWidth is how many queries may look for a connection at once. To find one takes microseconds, to make one takes
// some milliseconds.
const gateWidth = 4

// enter waits until a query may look for a connection. It returns the context to send the query with, and a function
// to call when the query has ended. The only error is that of ctx.
func (g gate) enter(ctx context.Context) (context.Context, func(), error) {
	if g == nil {
		return ctx, noop, nil
	}
	select {
	case g <- struct{}{}:
	case <-ctx.Done():
		return ctx, noop, ctx.Err()
	}
	leave := sync.OnceFunc(func() { <-g })
	found := func(httptrace.GotConnInfo) { leave() }
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: found}), leave, nil
}

// noop frees what has taken nothing.
func noop() {}
