package lb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ErrLookups is returned by Resolver.Lookup if the lookup could not start in time, because too many others are under
// way. It says nothing about the name.
var ErrLookups = errors.New("too many host names are being looked up")

// maxNames bounds how many names a Resolver remembers.
const maxNames = 16384

// How up to date the addresses of a name are.
const (
	// While a name is used it is looked up again after refreshEvery, beside its users.
	refreshEvery = time.Second

	// If all addresses of a name have failed, it is looked up at once; if those of that lookup fail too, after
	// hurryEvery.
	hurryEvery = 100 * time.Millisecond

	// If the last lookup has ended longer than staleAfter ago, or if all addresses have failed since, users wait for
	// the next one. They wait for staleWait at most, and then use what is known.
	staleAfter = 2 * time.Second
	staleWait  = 500 * time.Millisecond

	// The lookup of a name that is known ends after lookupLimit. That of another name ends when nobody has waited for
	// it for lookupLinger, or for a moment if others wait for a slot: a name server that is slower than its users must
	// get to answer.
	lookupLimit  = 10 * time.Second
	lookupLinger = 3 * time.Second
)

// A Resolver looks up the host names of endpoints, and remembers their addresses. Its methods may be called
// concurrently.
//
// A name that was found is known from then on. Its addresses stay when name servers are silent or fail. They are
// forgotten when two lookups in a row say that there is no such name. See refreshEvery for when a name is looked up
// again.
//
// It bounds how many lookups run at once, because each may hold two sockets for as long as the name servers are silent.
// Concurrent lookups of one name share one lookup. A quarter of the lookups is reserved for known names whose last
// lookup has found them, so names without an answer cannot keep all others waiting.
//
// Resolver is in this package because every package that dials an [Endpoint] imports it.
type Resolver struct {
	clock        clock
	slots        chan struct{} // holds a value for each lookup that runs
	unknownSlots chan struct{} // holds a value for each of those whose name was not found before

	ctx     context.Context // ends all lookups
	cancel  context.CancelFunc
	running sync.WaitGroup // lookups
	fresh   sync.Map       // from host names to freshAddrs: what needs no look at names

	mu        sync.Mutex
	names     map[string]*hostName // guarded by mu
	addrs     namedAddrs           // guarded by mu, but for what is atomic
	queued    int                  // lookups that wait for a slot; guarded by mu
	lingering map[*call]bool       // lookups that nobody waits for; guarded by mu

	found, denied, failed atomic.Int64 // lookups by their result
}

// freshAddrs are the addresses of a name that may be used without a lookup for a while.
type freshAddrs struct {
	addrs []netip.Addr
	until instant
}

// NewResolver returns a Resolver that runs at most so many lookups at once. Values below 1 count as 1. Close it.
func NewResolver(lookups int) *Resolver {
	lookups = max(lookups, 1)
	r := &Resolver{
		clock:        newClock(),
		slots:        make(chan struct{}, lookups),
		unknownSlots: make(chan struct{}, lookups-lookups/4),
		names:        map[string]*hostName{},
		addrs:        namedAddrs{all: map[namedAddrKey]*NamedAddr{}},
		lingering:    map[*call]bool{},
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Close ends all lookups, and returns when they have ended. What is known stays.
func (r *Resolver) Close() {
	r.mu.Lock() // no lookup begins afterwards
	r.cancel()
	r.mu.Unlock()
	r.running.Wait()
}

// Known returns the addresses of host if they are known and no lookup is worth waiting for. It does not wait. The
// caller must not change the addresses. Use Lookup otherwise.
func (r *Resolver) Known(host string) (addrs []netip.Addr, ok bool) {
	now := r.clock.now()
	if v, ok := r.fresh.Load(host); ok {
		if f := v.(freshAddrs); now < f.until {
			return f.addrs, true
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[host]
	if n == nil || len(n.addrs) == 0 {
		return nil, false
	}
	n.used = now
	if n.call == nil && n.isDue(now) {
		r.beginLocked(n, now)
	}
	switch c := n.call; {
	case c == nil:
		r.fresh.Store(host, freshAddrs{n.addrs, n.ended.add(refreshEvery)})
	case c.awaited && now.sub(n.asked) < staleWait:
		return nil, false
	}
	return n.addrs, true
}

// Lookup returns the addresses of host: at least one, or an error. It waits for a lookup until ctx ends; if the name is
// known, it waits for staleWait at most. The error wraps ErrLookups if the lookup did not start in time; otherwise it
// is a *net.DNSError. The caller must not change the addresses.
func (r *Resolver) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addrs, ok := r.Known(host); ok {
		return addrs, nil
	}
	c, left := r.join(host)
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	return r.leave(host, c, ctx)
}

// join returns the call for a name, which it starts if there is none, and how long to wait for it. The caller must
// leave it.
func (r *Resolver) join(host string) (c *call, left time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.now()
	n := r.nameLocked(host, now)
	if c = n.call; c == nil {
		c = r.beginLocked(n, now)
	}
	c.waiters++
	r.keepLocked(c)
	if len(n.addrs) == 0 {
		return c, distantFuture.sub(0)
	}
	return c, max(0, staleWait-now.sub(n.asked))
}

// leave undoes a join, and returns what is known then. If no other caller waits for a name that is not known, the call
// ends: at once if it has not started or others wait for its slot, else after lookupLinger.
func (r *Resolver) leave(host string, c *call, ctx context.Context) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.waiters--
	select {
	case <-c.done:
		if len(c.addrs) > 0 {
			return c.addrs, nil
		}
		return nil, c.err
	default:
	}
	if n := c.name; len(n.addrs) > 0 {
		return n.addrs, nil
	}
	started := c.started.Load()
	if c.waiters == 0 && (!started || r.queued > 0) {
		c.cancel()
	} else if c.waiters == 0 {
		r.lingerLocked(c)
	}
	if !started {
		return nil, fmt.Errorf("lookup %s: %w", host, ErrLookups)
	}
	return nil, &net.DNSError{
		UnwrapErr: ctx.Err(), Err: "no answer in time", Name: host, IsTimeout: true, IsTemporary: true,
	}
}

// nameLocked returns the name of a host, which it creates if need be.
func (r *Resolver) nameLocked(host string, now instant) *hostName {
	n := r.names[host]
	if n == nil {
		if len(r.names) >= maxNames {
			r.dropUnusedLocked(now)
		}
		n = &hostName{host: host}
		r.names[host] = n
	}
	n.used = now
	return n
}

// dropUnusedLocked forgets the names that have not been used for long.
func (r *Resolver) dropUnusedLocked(now instant) {
	for host, n := range r.names {
		if n.call == nil && now.sub(n.used) > nameUnused {
			r.forgetLocked(host)
		}
	}
}

func (r *Resolver) forgetLocked(host string) {
	delete(r.names, host)
	r.fresh.Delete(host)
}

// nameUnused is how long a name without users is kept at least.
const nameUnused = 10 * time.Minute
