package lb

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A queue holds the clients of one service that wait for room. Clients take turns, in the order in which they came, and
// the connections of one client are served first come, first served; ClientOf says what a client is. So one that opens
// many connections delays the others by one connection each, and one that waits alone has all the room that there is.
//
// Whoever makes room serves the queue on the way. One at a time does, and whoever comes meanwhile has it look again:
// so serving needs no lock while it picks, and a pick that makes room itself does no harm.
type queue struct {
	waiting atomic.Int64 // waiters in it
	recheck atomic.Bool  // there may be room for some
	serving atomic.Bool

	mu    sync.Mutex
	turns list.List            // of *line, that of the client whose turn is next first; guarded by mu
	lines map[netip.Addr]*line // by client; guarded by mu
}

// A line is the waiters of one client.
type line struct {
	client  netip.Addr
	waiters list.List     // of *Waiter
	turn    *list.Element // in the queue's turns
}

// slotsPerFree is how many places in the queue a client may have for each that is free. A client that is alone has
// four fifths of the queue, and two have four ninths each, so that others find some free (Choudhury and Hahne, "Dynamic
// Queue Length Thresholds for Shared-Memory Packet Switches", 1998). In a short queue that comes to all places.
const slotsPerFree = 4

// A Waiter is a connection of a client in the queue.
type Waiter struct {
	group   *group
	src     netip.Addr
	tried   Tried
	ready   func(*Member, error)
	timeout time.Duration
	timer   *time.Timer
	line    *line
	element *list.Element // in its line; nil once out of the queue; guarded by the queue's mu
}

// Wait puts a client whom NextEndpoint told ErrFull into the service's queue. Ready is called once, unless the
// waiter is cancelled: with a member, as NextEndpoint returns it, once there is room and it is this client's turn;
// with what NextEndpoint would say, if there is nothing to wait for any more; or with ErrFull, when the service's
// queue timeout is over. It may be called before Wait returns, and from any goroutine, which it must not block.
//
// Wait returns ErrFull if the queue is full too, or if there is none, or if the client has its share of the queue
// already.
func (b *RoundRobin) Wait(
	service string, src netip.AddrPort, tried Tried, ready func(*Member, error),
) (*Waiter, error) {
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
	w := &Waiter{group: g, src: src, tried: tried, ready: ready, timeout: o.QueueTimeout}
	q.mu.Lock()
	if !q.joinLocked(w, o.MaxQueue) {
		q.mu.Unlock()
		return nil, ErrFull
	}
	w.timer = time.AfterFunc(w.timeout, w.expire)
	q.mu.Unlock()
	g.serveQueue() // there may be some since NextEndpoint said that there is none
	return w, nil
}

// joinLocked puts w into the queue if there is a place for it among most.
func (q *queue) joinLocked(w *Waiter, most int) bool {
	client := ClientOf(w.src)
	l := q.lines[client]
	has, free := 0, most-int(q.waiting.Load())
	if l != nil {
		has = l.waiters.Len()
	}
	if has >= slotsPerFree*free {
		return false
	}
	if l == nil {
		if q.lines == nil {
			q.lines = map[netip.Addr]*line{}
		}
		l = &line{client: client}
		l.turn = q.turns.PushBack(l)
		q.lines[client] = l
	}
	w.line, w.element = l, l.waiters.PushBack(w)
	q.waiting.Add(1)
	return true
}

// Cancel takes the client out of the queue, and tells whether it was still in it. If it was not, ready has been
// called, or is being called, and what it gets is the caller's.
func (w *Waiter) Cancel() bool { return w.leave(false) }

// leave takes the client out of the queue, and tells whether it was still in it. If it is served, this was its client's
// turn.
func (w *Waiter) leave(served bool) bool {
	q := &w.group.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.element == nil {
		return false
	}
	w.timer.Stop()
	l := w.line
	l.waiters.Remove(w.element)
	w.element = nil
	q.waiting.Add(-1)
	switch {
	case l.waiters.Len() == 0:
		q.turns.Remove(l.turn)
		delete(q.lines, l.client)
	case served:
		q.turns.MoveToBack(l.turn)
	}
	return true
}

// front is the waiter whose turn it is; nil if there is none.
func (q *queue) front() *Waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := q.turns.Front()
	if first == nil {
		return nil
	}
	return first.Value.(*line).waiters.Front().Value.(*Waiter)
}

// expire is called when the client has waited for long enough.
func (w *Waiter) expire() {
	if w.Cancel() {
		w.ready(nil, fmt.Errorf("%w for %v", ErrFull, w.timeout))
	}
}

// serveQueue is told whenever a use has ended, or something may be picked that could not be before.
func (g *group) serveQueue() {
	if g.queue.waiting.Load() == 0 {
		return
	}
	q := &g.queue
	for q.recheck.Store(true); q.recheck.Load() && q.serving.CompareAndSwap(false, true); {
		q.recheck.Store(false)
		for g.serveNext() {
		}
		q.serving.Store(false)
	}
}

// serveNext serves the client whose turn it is, and tells whether there may be more to do.
func (g *group) serveNext() bool {
	w := g.queue.front()
	if w == nil {
		return false
	}
	m, err := g.pick(w.src, &w.tried)
	if err == ErrFull {
		return false
	}
	if w.leave(true) {
		w.ready(m, err)
	} else if m != nil {
		m.Done() // it has left while this was picked
	}
	return true
}
