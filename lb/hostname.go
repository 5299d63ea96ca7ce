package lb

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// A hostName holds what a Resolver knows about one host name. Resolver.mu guards it.
type hostName struct {
	host     string
	addrs    []netip.Addr // found by the last good lookup; empty: the name is not known; never changed in place
	answered instant      // when the last good lookup ended
	call     *call        // the running lookup; nil: none
	asked    instant      // when the last lookup began
	ended    instant      // when the last lookup ended, with any result; 0: none has ended
	err      error        // error of the last finished lookup; nil: it found the name
	denied   int          // lookups in a row that said that the name does not exist
	failed   instant      // when all addresses were last known to fail; 0: never
	hurried  bool         // the last lookup began because all addresses failed
	used     instant      // when a caller last used the name
}

// A call is a lookup that is running or waits for a slot.
type call struct {
	name    *hostName
	cancel  context.CancelFunc
	awaited bool          // users of a known name should wait for this lookup
	started atomic.Bool   // the lookup has its slots
	waiters int           // callers that wait for the lookup; guarded by Resolver.mu
	timer   *time.Timer   // ends a lookup without waiters; nil: no end is planned; guarded by Resolver.mu
	done    chan struct{} // closed when addrs and err are set
	addrs   []netip.Addr  // the known addresses at the end of the lookup
	err     error         // the error, if no addresses are known
}

// isDue reports whether a known name should be looked up again.
func (n *hostName) isDue(now instant) bool {
	age := now.sub(n.ended)
	return n.ended == 0 || age >= refreshEvery || n.failed > n.asked && (!n.hurried || age >= hurryEvery)
}

// beginLocked starts a lookup of n, and returns its call. After Close, the returned call has already ended.
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

// lingerLocked plans the end of a call without waiters. The call ends after lookupLinger, or when another lookup needs
// its slot.
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

// queue counts a lookup that waits for a slot, and ends one running lookup that has no waiters.
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

// run looks up a name, and stores the result.
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

// noteLocked stores the result of a lookup in n.
func (r *Resolver) noteLocked(n *hostName, addrs []netip.Addr, err error) {
	var dns *net.DNSError
	switch {
	case err == nil:
		r.found.Add(1)
		n.addrs, n.answered, n.err, n.denied = addrs, n.ended, nil, 0
	case errors.Is(err, ErrLookups) || errors.Is(err, context.Canceled): // such an error says nothing about the name
	case errors.As(err, &dns) && dns.IsNotFound && !dns.IsTemporary:
		r.denied.Add(1)
		n.err = err
		if n.denied++; n.denied > 1 { // the first "no such name" may be the name server's mistake
			n.addrs = nil
		}
	default:
		r.failed.Add(1)
		n.err = err
	}
}

// lookup waits for slots, and then looks up the host of c. lookup returns ErrLookups if ctx ends before it has its
// slots.
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

// take waits for a free slot. take returns false if ctx ends first.
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
