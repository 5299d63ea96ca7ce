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

// ErrLookups is returned by Resolver.Lookup if the lookup could not start in time, because too many other lookups were
// running. ErrLookups says nothing about the name.
var ErrLookups = errors.New("too many host name lookups are running")

// maxNames is the largest number of names that a Resolver remembers.
const maxNames = 16384

// These constants say how up to date the addresses of a name are.
const (
	// The Resolver looks up a name in use again after refreshEvery. Users of the name do not wait for that lookup.
	refreshEvery = time.Second

	// If all addresses of a name have failed, the Resolver looks the name up at once. If the new addresses fail too,
	// the next lookup follows after hurryEvery.
	hurryEvery = 100 * time.Millisecond

	// Users wait for a lookup if the last one ended more than staleAfter ago, or if all addresses have failed since.
	// Users wait for staleWait at most, and then use the known addresses.
	staleAfter = 2 * time.Second
	staleWait  = 500 * time.Millisecond

	// The lookup of a known name ends after lookupLimit. The lookup of an unknown name ends after lookupLinger without
	// waiters. The lookup goes on that long because a name server may be slower than the users' timeouts. If another
	// lookup waits for a slot, a lookup without waiters ends at once.
	lookupLimit  = 10 * time.Second
	lookupLinger = 3 * time.Second
)

// A Resolver looks up the host names of endpoints, and remembers their addresses. The methods of a Resolver may be
// called concurrently.
//
// Once a lookup has found a name, the name is known. The Resolver keeps the addresses of a known name while name
// servers are silent or fail. The Resolver forgets the addresses when two lookups in a row say that the name does not
// exist. The constant refreshEvery says when a name is looked up again.
//
// The Resolver limits how many lookups run at once, because each lookup may hold two sockets for as long as the name
// servers are silent. Concurrent callers for the same name share one lookup. A quarter of the lookups is reserved for
// known names that the last lookup found. Names without an answer therefore cannot block all other names.
//
// Resolver is in package lb because every package that dials an [Endpoint] imports package lb.
type Resolver struct {
	clock        clock
	slots        chan struct{} // holds a value for each running lookup
	unknownSlots chan struct{} // holds a value for each running lookup of a name that the last lookup did not find

	ctx     context.Context // ends all lookups
	cancel  context.CancelFunc
	running sync.WaitGroup // counts lookups
	fresh   sync.Map       // host name to freshAddrs: names that can be used without the lock

	mu        sync.Mutex
	names     map[string]*hostName // guarded by mu
	addrs     namedAddrs           // guarded by mu, except for atomic fields
	queued    int                  // lookups that wait for a slot; guarded by mu
	lingering map[*call]bool       // lookups without waiters; guarded by mu

	found, denied, failed atomic.Int64 // finished lookups by their result
}

// freshAddrs holds the addresses of a name, and until when they may be used without a lookup.
type freshAddrs struct {
	addrs []netip.Addr
	until instant
}

// NewResolver returns a Resolver. lookups is how many lookups may run at once; values below 1 count as 1. The caller
// must Close the Resolver.
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

// Close ends all lookups, and returns when they have ended. The Resolver keeps the known names.
func (r *Resolver) Close() {
	r.mu.Lock() // no lookup begins after this
	r.cancel()
	r.mu.Unlock()
	r.running.Wait()
}

// Known returns the addresses of host, without waiting. ok is false if the name is not known, or if the caller should
// wait for a running lookup; call Lookup in that case. The caller must not change the addresses.
func (r *Resolver) Known(host string) (addrs []netip.Addr, ok bool) {
	now := r.clock.now()
	if addrs, ok := r.freshAddrs(host, now); ok {
		return addrs, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.knownLocked(host, now)
}

// freshAddrs returns the addresses of a name that needs no lookup yet. freshAddrs takes no lock.
func (r *Resolver) freshAddrs(host string, now instant) (addrs []netip.Addr, ok bool) {
	v, ok := r.fresh.Load(host)
	if !ok {
		return nil, false
	}
	f := v.(freshAddrs)
	return f.addrs, now < f.until
}

// knownLocked does what Known does for a name that is not fresh.
func (r *Resolver) knownLocked(host string, now instant) (addrs []netip.Addr, ok bool) {
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

// Lookup returns the addresses of host: at least one address, or an error. For an unknown name, Lookup waits until ctx
// ends; for a known name, it waits for staleWait at most. The error wraps ErrLookups if the lookup did not start in
// time; otherwise it is a *net.DNSError. The caller must not change the addresses.
func (r *Resolver) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addrs, ok := r.freshAddrs(host, r.clock.now()); ok {
		return addrs, nil
	}
	addrs, c, left := r.join(host)
	if c == nil {
		return addrs, nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	return r.leave(host, c, ctx)
}

// join returns the addresses of a name if they may be used now. Otherwise join returns the running call for the name,
// and how long the caller should wait for it; join starts a call if there is none. The caller must leave the call.
func (r *Resolver) join(host string) (addrs []netip.Addr, c *call, left time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.now()
	if addrs, ok := r.knownLocked(host, now); ok {
		return addrs, nil, 0
	}
	n := r.nameLocked(host, now)
	if c = n.call; c == nil {
		c = r.beginLocked(n, now)
	}
	c.waiters++
	r.keepLocked(c)
	if len(n.addrs) == 0 {
		return nil, c, distantFuture.sub(0)
	}
	return nil, c, max(0, staleWait-now.sub(n.asked))
}

// leave undoes a join, and returns the addresses that are known by then. A call for an unknown name ends when its last
// waiter leaves: at once if it has not started or other lookups wait for slots, otherwise after lookupLinger.
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

// nameLocked returns the hostName for host, and creates it if there is none.
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

// dropUnusedLocked forgets names that have not been used for longer than nameUnused.
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

// nameUnused is how long the Resolver keeps a name without users at least.
const nameUnused = 10 * time.Minute
