package lb

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// A hostName is what a Resolver knows of a host name. Resolver.mu guards it.
type hostName struct {
	host     string
	addrs    []netip.Addr // that the last good lookup has found; empty: the name is not known; not changed in place
	answered instant      // when that has ended
	call     *call        // the lookup that runs; nil: none
	asked    instant      // when the last lookup began
	ended    instant      // when it has ended, however; 0: none has
	err      error        // of the last lookup that has ended; nil if it was good
	denied   int          // lookups in a row that have said that there is no such name
	failed   instant      // when all addresses were last known to fail; 0: never
	hurried  bool         // the last lookup began for that
	used     instant      // by a caller
}

// A call is a lookup that runs or waits for a slot.
type call struct {
	name    *hostName
	cancel  context.CancelFunc
	awaited bool          // users of a known name should wait for it
	started atomic.Bool   // it has got its slots
	waiters int           // callers that wait for it; guarded by Resolver.mu
	timer   *time.Timer   // ends it, as nobody waits; nil: it goes on; guarded by Resolver.mu
	done    chan struct{} // closed when the following are set
	addrs   []netip.Addr  // that are known then
	err     error         // if none are
}

// isDue reports whether a name that is known should be looked up again.
func (n *hostName) isDue(now instant) bool {
	age := now.sub(n.ended)
	return n.ended == 0 || age >= refreshEvery || n.failed > n.asked && (!n.hurried || age >= hurryEvery)
}

// beginLocked starts a lookup of n, and returns it. After Close it returns one that has ended.
func (r *Resolver) beginLocked(n *hostName, now instant) *call {
	c := &call{name: n, addrs: n.addrs, done: make(chan struct{})}
	if r.ctx.Err() != nil {
		if c.err = ErrLookups; len(n.addrs) == 0 {
			r.forgetLocked(n.host)
		}
		close(c.done)
		return c
	}
	known := len(n.addrs) > 0
	limit := time.Duration(0)
	if known {
		limit = lookupLimit
	}
	var ctx context.Context
	ctx, c.cancel = within(r.ctx, limit)
	n.hurried = n.failed > n.asked
	c.awaited = n.hurried || n.ended == 0 || now.sub(n.ended) > staleAfter
	n.call, n.asked = c, now
	answers := known && n.err == nil
	r.running.Go(func() { r.run(ctx, c, answers) })
	return c
}

// lingerLocked ends a call after lookupLinger, or when another one needs its slot.
func (r *Resolver) lingerLocked(c *call) {
	if c.timer == nil {
		c.timer = time.AfterFunc(lookupLinger, c.cancel)
		r.lingering[c] = true
	}
}

// keepLocked undoes lingerLocked.
func (r *Resolver) keepLocked(c *call) {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
		delete(r.lingering, c)
	}
}

// queue counts a lookup that waits for a slot, and ends one that nobody waits for.
func (r *Resolver) queue() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queued++
	for c := range r.lingering {
		c.cancel()
		r.keepLocked(c)
		break
	}
}

func (r *Resolver) unqueue() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queued--
}

// run looks up a name, and notes the result.
func (r *Resolver) run(ctx context.Context, c *call, answers bool) {
	defer close(c.done)
	defer c.cancel()
	addrs, err := r.lookup(ctx, c, answers)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keepLocked(c)
	n := c.name
	n.call, n.ended = nil, r.clock.now()
	r.noteLocked(n, addrs, err)
	if c.addrs = n.addrs; len(n.addrs) > 0 && len(r.names) <= maxNames {
		r.fresh.Store(n.host, freshAddrs{n.addrs, n.ended.add(refreshEvery)})
		return
	}
	c.err = err
	r.forgetLocked(n.host)
}

// noteLocked notes the result of a lookup.
func (r *Resolver) noteLocked(n *hostName, addrs []netip.Addr, err error) {
	var dns *net.DNSError
	switch {
	case err == nil:
		r.found.Add(1)
		n.addrs, n.answered, n.err, n.denied = addrs, n.ended, nil, 0
	case errors.Is(err, ErrLookups) || errors.Is(err, context.Canceled): // says nothing about the name
	case errors.As(err, &dns) && dns.IsNotFound && !dns.IsTemporary:
		r.denied.Add(1)
		n.err = err
		if n.denied++; n.denied > 1 { // the first time it may be the name server's mistake
			n.addrs = nil
		}
	default:
		r.failed.Add(1)
		n.err = err
	}
}

// lookup waits for slots, and looks up the host of c. It returns ErrLookups if ctx ends before it has its slots.
func (r *Resolver) lookup(ctx context.Context, c *call, answers bool) ([]netip.Addr, error) {
	slots := []chan struct{}{r.unknownSlots, r.slots}
	if answers {
		slots = slots[1:]
	}
	for _, s := range slots {
		if !r.take(ctx, s) {
			return nil, ErrLookups
		}
		defer func() { <-s }()
	}
	c.started.Store(true)
	addrs, err := lookup(ctx, c.name.host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

// take waits for one of slots. It returns false if ctx ends before.
func (r *Resolver) take(ctx context.Context, slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
	}
	r.queue()
	defer r.unqueue()
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}
