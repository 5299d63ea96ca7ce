package consul

import (
	"context"
	"net/http/httptrace"
	"sync"
)

// A gate lets only a few queries look for a connection at the same time. A nil gate has no limit.
//
// Over HTTP/2, a few connections carry all queries. A query that finds all connections full opens a new one, and so
// does every query that comes before that one is open. An agent with a slow handshake, for example under thousands of
// new queries, would receive hundreds of connections and refuse those beyond its limit.
type gate chan struct{}

// gateWidth is the number of queries that may look for a connection at once. Finding one takes microseconds, and
// opening one takes some milliseconds.
const gateWidth = 4

// enter waits until a query may look for a connection. enter returns the context for the query, and a function to call
// when the query has ended. enter returns an error only if ctx ends.
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

// noop is the release function of a nil gate, and of an answer that holds no buffer.
func noop() {}
