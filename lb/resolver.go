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
)

// ErrLookups is returned by Resolver.Lookup when so many lookups are under way that this one did not begin in time.
// That says nothing about the name.
var ErrLookups = errors.New("too many host names are being looked up")

// maxKnown is how many names a Resolver remembers to have found.
const maxKnown = 16384

// A Resolver looks up the host names of endpoints, for all who dial them. It bounds how many lookups are under way at
// once, for each takes up to two sockets for as long as name servers are silent. Lookups of one name at one time are
// one lookup. Its methods may be called concurrently.
//
// Names that have not been found the last time leave a quarter of the lookups to those that have: names that nobody
// answers for must not keep all others waiting.
//
// It is in this package because an [Endpoint] may have a host name, and every room that dials endpoints imports this
// one.
type Resolver struct {
	slots        chan struct{} // has one for each lookup that is under way
	unknownSlots chan struct{} // has one for each of those whose name has not been found the last time

	mu    sync.Mutex
	calls map[string]*call    // by name; guarded by mu
	known map[string]struct{} // names that have been found the last time; guarded by mu
}

// A call is a lookup that is under way or waits for a slot.
type call struct {
	cancel  context.CancelFunc
	started atomic.Bool   // it has its slots
	waiters int           // that wait for it; guarded by Resolver.mu
	done    chan struct{} // closed when the following are there
	addrs   []netip.Addr
	err     error
}

// NewResolver returns a Resolver that has so many lookups under way at most, at least one.
func NewResolver(lookups int) *Resolver {
	lookups = max(lookups, 1)
	return &Resolver{
		slots:        make(chan struct{}, lookups),
		unknownSlots: make(chan struct{}, lookups-lookups/4),
		calls:        map[string]*call{},
		known:        map[string]struct{}{},
	}
}

// Lookup returns the addresses of host, in the order in which they should be tried: at least one, or an error. Until
// ctx ends it waits for its turn and for the answer. The error wraps ErrLookups if its turn did not come, and is a
// *net.DNSError otherwise.
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

// join waits for the call for a name, a new one if there is none. The caller leaves if it does not wait for its end.
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

// leave undoes a join. If nobody waits for the call any more, it ends the call, which then is done at once, and returns
// true.
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

// run looks up a name as soon as it may. It ends when it has an answer or when the last one leaves the call.
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

// DialAny connects to port at the first of addrs to which that is possible. Each gets its part of the time that is left
// until ctx ends. The error is that of the last one tried.
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

// dialPart connects to one of several addresses that are to be tried before ctx ends.
func dialPart(ctx context.Context, d *net.Dialer, network string, addr netip.AddrPort, of int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && of > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(of))
		defer cancel()
	}
	return d.DialContext(ctx, network, addr.String())
}
