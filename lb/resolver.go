package lb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/internal/deadline"
)

// ErrLookups is returned by Resolver.Lookup if the lookup could not start in time, because too many others are under
// way. It says nothing about the name.
var ErrLookups = errors.New("too many host names are being looked up")

// maxKnown bounds how many known names a Resolver remembers.
const maxKnown = 16384

// A Resolver looks up the host names of endpoints. It bounds how many lookups run at once, because each may hold two
// sockets for as long as the name servers are silent. Concurrent lookups of one name share one lookup. Its methods may
// be called concurrently.
//
// A quarter of the lookups is reserved for known names, which the last lookup has found. So names without an answer
// cannot keep all others waiting.
//
// Resolver is in this package because every package that dials an [Endpoint] imports it.
type Resolver struct {
	slots        chan struct{} // holds a value for each lookup that runs
	unknownSlots chan struct{} // holds a value for each of those whose name is not known

	mu    sync.Mutex
	calls map[string]*call    // by name; guarded by mu
	known map[string]struct{} // names that the last lookup has found; guarded by mu
}

// A call is a lookup that runs or waits for a slot.
type call struct {
	cancel  context.CancelFunc
	started atomic.Bool   // it has got its slots
	waiters int           // callers that wait for it; guarded by Resolver.mu
	done    chan struct{} // closed when the following are set
	addrs   []netip.Addr
	err     error
}

// NewResolver returns a Resolver that runs at most so many lookups at once. Values below 1 count as 1.
func NewResolver(lookups int) *Resolver {
	lookups = max(lookups, 1)
	return &Resolver{
		slots:        make(chan struct{}, lookups),
		unknownSlots: make(chan struct{}, lookups-lookups/4),
		calls:        map[string]*call{},
		known:        map[string]struct{}{},
	}
}

// Lookup returns the addresses of host in the order in which to try them: at least one, or an error. It waits for a
// slot and for the answer until ctx ends. The error wraps ErrLookups if it got no slot in time; otherwise it is a
// *net.DNSError.
func (r *Resolver) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	c := r.join(host)
	select {
	case <-c.done:
		return slices.Clone(c.addrs), c.err
	case <-ctx.Done():
	}
	begun := c.started.Load()
	if r.leave(host, c) {
		<-c.done
	}
	if !begun {
		return nil, fmt.Errorf("lookup %s: %w", host, ErrLookups)
	}
	return nil, &net.DNSError{
		UnwrapErr: ctx.Err(), Err: "no answer in time", Name: host, IsTimeout: true, IsTemporary: true,
	}
}

// join returns the call for a name, which it starts if there is none. A caller that does not wait for the end of the
// call must leave it.
func (r *Resolver) join(host string) *call {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.calls[host]
	if c == nil {
		ctx, cancel := context.WithCancel(context.Background())
		c = &call{cancel: cancel, done: make(chan struct{})}
		r.calls[host] = c
		_, known := r.known[host]
		go r.run(ctx, host, c, known)
	}
	c.waiters++
	return c
}

// leave undoes a join. If no caller waits any more, it cancels the call, which then ends at once, and returns true.
func (r *Resolver) leave(host string, c *call) (last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.waiters--; c.waiters > 0 {
		return false
	}
	if r.calls[host] == c {
		delete(r.calls, host)
	}
	c.cancel()
	return true
}

// run looks up a name. It ends with the answer, or when the last caller has left.
func (r *Resolver) run(ctx context.Context, host string, c *call, known bool) {
	defer close(c.done)
	defer c.cancel()
	c.addrs, c.err = r.lookup(ctx, host, c, known)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls[host] == c {
		delete(r.calls, host)
	}
	switch {
	case c.err != nil:
		delete(r.known, host)
	case len(r.known) < maxKnown:
		r.known[host] = struct{}{}
	}
}

// lookup waits for slots, and looks up host. It returns ErrLookups if ctx ends before it has its slots.
func (r *Resolver) lookup(ctx context.Context, host string, c *call, known bool) ([]netip.Addr, error) {
	slots := []chan struct{}{r.unknownSlots, r.slots}
	if known {
		slots = slots[1:]
	}
	for _, s := range slots {
		select {
		case s <- struct{}{}:
		case <-ctx.Done():
			return nil, ErrLookups
		}
		defer func() { <-s }()
	}
	c.started.Store(true)
	return lookup(ctx, host)
}

// DialAny connects to port at the first of addrs that accepts a connection. Each address gets an equal part of the time
// that is left until ctx ends. The error is that of the last address tried; it is ErrMissingEndpoints if addrs is
// empty.
func DialAny(ctx context.Context, d *net.Dialer, network string, addrs []netip.Addr, port uint16) (net.Conn, error) {
	err := ErrMissingEndpoints
	for i, addr := range addrs {
		var conn net.Conn
		conn, err = dialPart(ctx, d, network, netip.AddrPortFrom(addr.Unmap(), port), len(addrs)-i)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// dialPart connects to addr, with one part in of of the time until ctx ends.
func dialPart(ctx context.Context, d *net.Dialer, network string, addr netip.AddrPort, of int) (net.Conn, error) {
	if end, ok := deadline.End(ctx); ok && of > 1 {
		var cancel context.CancelFunc
		ctx, cancel = deadline.WithTimeout(ctx, time.Until(end)/time.Duration(of))
		defer cancel()
	}
	return deadline.Dial(ctx, *d, network, addr.String())
}
