package consul

import (
	"context"
	"net/http/httptrace"
	"sync"
)

// A gate lets few queries at a time look for a connection. Over HTTP/2 a query that finds every connection full makes a new one, and so
// does every other that comes while that is made: an agent that is slow to shake hands, as one with thousands of new queries is, would
// be dialled hundreds of times for the few connections that carry them all, and refuse those beyond its limit. A nil gate is open.
type gate chan struct{}

// gateWidth is how many may look at once. Finding a connection takes microseconds, making one some milliseconds.
const gateWidth = 4

// enter waits until the query may look for a connection. The context is for that, and the function is to be called when the query has
// ended. The error is ctx's.
func (g gate) enter(ctx context.Context) (context.Context, func(), error) {
	if g == nil {
		return ctx, nothing, nil
	}
	select {
	case g <- struct{}{}:
	case <-ctx.Done():
		return ctx, nothing, ctx.Err()
	}
	leave := sync.OnceFunc(func() { <-g })
	found := func(httptrace.GotConnInfo) { leave() }
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: found}), leave, nil
}

// nothing is what there is to free of what took nothing.
func nothing() {}
