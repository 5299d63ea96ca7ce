package lb

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A queue holds the clients of one service that wait for room, first come, first served.
//
// Whoever makes room serves the queue on the way. One at a time does, and whoever comes meanwhile has it look again: so serving needs no
// lock while it picks, and a pick that makes room itself does no harm.
type queue struct {
	waiting atomic.Int64 // clients in it
	wanted  atomic.Bool  // there may be room for some
	serving atomic.Bool

	mu      sync.Mutex
	clients list.List // of *Waiter, guarded by mu
}

// A Waiter is a client in the queue.
type Waiter struct {
	group *group
	src   netip.Addr
	tried Tried
	ready func(*Member, error)
	limit time.Duration
	timer *time.Timer
	place *list.Element // nil once out of the queue; guarded by the queue's mu
}

// Wait puts a client whom NextEndpoint told ErrFull into the service's queue. Ready is called once, unless the waiter is cancelled: with a
// member, as NextEndpoint returns it, once there is room and it is this client's turn; with what NextEndpoint would say, if there is
// nothing to wait for any more; or with ErrFull, when the service's queue timeout is over. It may be called before Wait returns, and
// from any goroutine, which it must not block.
//
// Wait returns ErrFull if the queue is full too, or if there is none.
func (b *Balancer) Wait(service string, src netip.AddrPort, tried Tried, ready func(*Member, error)) (*Waiter, error) {
	v, ok := b.services.Load(service)
	if !ok {
		return nil, ErrMissingServiceEntry
	}
	return v.(*group).wait(src.Addr(), tried, ready)
}

func (g *group) wait(src netip.Addr, tried Tried, ready func(*Member, error)) (*Waiter, error) {
	o, q := g.options(), &g.queue
	if o.QueueTimeout <= 0 {
		return nil, ErrFull
	}
	w := &Waiter{group: g, src: src, tried: tried, ready: ready, limit: o.QueueTimeout}
	q.mu.Lock()
	if q.clients.Len() >= o.MaxQueue {
		q.mu.Unlock()
		return nil, ErrFull
	}
	w.place = q.clients.PushBack(w)
	w.timer = time.AfterFunc(w.limit, w.expire)
	q.waiting.Add(1)
	q.mu.Unlock()
	g.hasRoom() // there may be some since NextEndpoint said that there is none
	return w, nil
}

// Cancel takes the client out of the queue, and tells whether it was still in it. If it was not, ready has been called, or is being
// called, and what it gets is the caller's.
func (w *Waiter) Cancel() bool {
	q := &w.group.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return w.leaveLocked(q)
}

func (w *Waiter) leaveLocked(q *queue) bool {
	if w.place == nil {
		return false
	}
	w.timer.Stop()
	q.clients.Remove(w.place)
	w.place = nil
	q.waiting.Add(-1)
	return true
}

// expire is called when the client has waited for long enough.
func (w *Waiter) expire() {
	if w.Cancel() {
		w.ready(nil, fmt.Errorf("%w for %v", ErrFull, w.limit))
	}
}

// hasRoom is told whenever a use has ended, or something may be picked that could not be before.
func (g *group) hasRoom() {
	if g.queue.waiting.Load() == 0 {
		return
	}
	q := &g.queue
	for q.wanted.Store(true); q.wanted.Load() && q.serving.CompareAndSwap(false, true); {
		q.wanted.Store(false)
		for g.serveOne() {
		}
		q.serving.Store(false)
	}
}

// serveOne serves the first client in the queue, and tells whether there may be more to do.
func (g *group) serveOne() bool {
	q := &g.queue
	q.mu.Lock()
	first := q.clients.Front()
	q.mu.Unlock()
	if first == nil {
		return false
	}
	w := first.Value.(*Waiter)
	m, err := g.pick(w.src, &w.tried)
	if err == ErrFull {
		return false
	}
	if w.Cancel() {
		w.ready(m, err)
	} else if m != nil {
		m.Done() // it has left while this was picked
	}
	return true
}
