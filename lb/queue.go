package lb

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A queue holds the waiting connections of one service. Clients, as ClientOf distinguishes them, take turns in the
// order in which they came. Connections of the same client are served first come, first served. A client that opens
// many connections therefore delays each other client by only one connection at a time. A client that waits alone gets
// all free capacity.
//
// A goroutine that frees capacity serves the queue. Only one goroutine serves the queue at a time. If a second
// goroutine frees capacity, it sets recheck, and the serving goroutine checks the queue again. The queue holds no lock
// during a pick, and a pick may itself free capacity.
type queue struct {
	waiting atomic.Int64 // number of waiters
	foreign atomic.Int64 // clients that wait in other processes
	recheck atomic.Bool  // there may be free capacity: serve the queue once more
	serving atomic.Bool  // a goroutine is serving the queue

	mu    sync.Mutex
	turns list.List            // of *line, in the order of turns; guarded by mu
	lines map[netip.Addr]*line // by client; guarded by mu
}

// A line holds the waiters of one client.
type line struct {
	client  netip.Addr
	waiters list.List     // of *Waiter
	turn    *list.Element // position of the line in the queue's turns
}

// slotsPerFree is how many slots of the queue a client may have for each free slot. A single client can take four
// fifths of the queue, and two clients can take four ninths each. The rest stays free for other clients (Choudhury and
// Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998). In a short queue, one client can
// take all slots.
const slotsPerFree = 4

// A Waiter is a connection that waits in the queue of a service.
type Waiter struct {
	group   *group
	src     netip.Addr
	tried   Tried
	ready   func(*Member, error)
	timeout time.Duration
	timer   *time.Timer
	line    *line
	element *list.Element // position in its line; nil after the Waiter has left the queue; guarded by the queue's mu
}

// Wait implements LoadBalancer. Unless the Waiter is cancelled, Wait calls ready once:
//
//   - with a Member, as NextEndpoint returns it, when it is the client's turn and a connection is allowed;
//   - with the error of NextEndpoint, if that error is no longer ErrFull;
//   - with an error that wraps ErrFull, when the service's queue timeout is over.
//
// ready may be called from any goroutine, even before Wait returns. ready must not block.
//
// If the service has no endpoint, a client waits for the first endpoint until Options.EmptyWait is over. After that,
// the client waits for the queue timeout. The queue forgets which endpoints such a client has tried.
//
// Wait returns ErrFull if the queue is full, if the service has no queue, or if the client already has its share of the
// queue. In these cases, Wait returns ErrMissingEndpoints instead if the service has no endpoint.
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
	st, q := g.state.Load(), &g.queue
	o := &st.options
	w := &Waiter{group: g, src: src, tried: tried, ready: ready, timeout: max(0, o.QueueTimeout)}
	if rest := st.emptyWait(); rest > 0 {
		w.tried = Tried{} // the first endpoint may be one that the client tried before
		w.timeout += rest
	}
	if w.timeout == 0 { // an endpoint may have come since NextEndpoint found none
		m, err := g.pick(src, &tried)
		if err != nil {
			return nil, err
		}
		ready(m, nil)
		return w, nil
	}
	q.mu.Lock()
	if !q.joinLocked(w, o.MaxQueue) {
		q.mu.Unlock()
		return nil, g.overdue()
	}
	w.timer = time.AfterFunc(w.timeout, w.expire)
	q.mu.Unlock()
	g.serveQueue() // a connection may have ended since NextEndpoint returned ErrFull
	return w, nil
}

// joinLocked adds w to the queue. size is how many slots the queue has. joinLocked returns false if the client of w may
// have no further slot.
func (q *queue) joinLocked(w *Waiter, size int) bool {
	client := ClientOf(w.src)
	l := q.lines[client]
	has, free := 0, size-int(q.waiting.Load()+q.foreign.Load())
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

// Cancel removes the waiter from the queue, and reports whether the waiter was still in the queue. If Cancel returns
// false, ready has been called or is being called, and the Member that ready gets is in use.
func (w *Waiter) Cancel() bool { return w.leave(false) }

// leave removes the waiter from the queue, and reports whether the waiter was still in the queue. If served is true,
// the client has had its turn, and goes to the end of the order.
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
	w.group.balancer.ended()
	switch {
	case l.waiters.Len() == 0:
		q.turns.Remove(l.turn)
		delete(q.lines, l.client)
	case served:
		q.turns.MoveToBack(l.turn)
	}
	return true
}

// front returns the waiter with the next turn; nil if the queue is empty.
func (q *queue) front() *Waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := q.turns.Front()
	if first == nil {
		return nil
	}
	return first.Value.(*line).waiters.Front().Value.(*Waiter)
}

// expire removes the waiter when its timeout is over.
func (w *Waiter) expire() {
	if w.Cancel() {
		w.ready(nil, fmt.Errorf("waited %v: %w", w.timeout.Round(time.Millisecond), w.group.overdue()))
	}
}

// overdue returns the error for a client that cannot wait, or that has waited for as long as it may.
func (g *group) overdue() error {
	if len(g.state.Load().members) == 0 {
		return ErrMissingEndpoints
	}
	return ErrFull
}

// serveQueue serves waiting clients. Call serveQueue when a use has ended, or when a member may be picked again.
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

// serveNext serves the client with the next turn. serveNext returns false if no client waits or a limit is reached.
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
		m.Done() // the waiter was cancelled during the pick
	}
	return true
}
