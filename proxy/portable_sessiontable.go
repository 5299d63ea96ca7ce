package proxy

import (
	"net/netip"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/proxy/internal/batch"
)

// A sessionKey identifies a session: by the sender's address and, on a wildcard listener, by the address that the
// sender dialled. If the sender is a proxy, what it says of the client is a part of the key.
type sessionKey struct {
	client     netip.AddrPort
	local      netip.Addr
	introduced batch.Introduced
}

// A sessionTable holds the sessions of one listener. A sessionTable finds the session that has been idle longest.
type sessionTable struct {
	mu       sync.Mutex
	byKey    map[sessionKey]*session // without sessions that have received all their datagrams
	count    int                     // number of sessions in the list
	ring     session                 // head of the list, least recently listed first; only its links are used
	draining bool                    // no new sessions are added
	empty    chan struct{}           // closed when draining is true and the list is empty
	woken    chan struct{}           // has an element when the next expiry may be sooner
}

// relist returns how outdated a session's place in the list may be. An active session takes the table's lock once in
// that time, and not for each datagram.
func relist(idle time.Duration) time.Duration { return min(time.Second, idle/8) }

func (t *sessionTable) init() {
	t.byKey = map[sessionKey]*session{}
	t.ring.next, t.ring.prev = &t.ring, &t.ring
	t.empty = make(chan struct{})
	t.woken = make(chan struct{}, 1)
}

func (t *sessionTable) get(key sessionKey) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byKey[key]
}

func (t *sessionTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// add adds x as the most recent session. add returns false while draining.
func (t *sessionTable) add(x *session, now time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.draining {
		return false
	}
	t.byKey[x.key] = x
	x.last.Store(int64(now))
	x.listed.Store(int64(now))
	t.linkLocked(x)
	if t.ring.next == x {
		t.wakeLocked()
	}
	return true
}

func (t *sessionTable) linkLocked(x *session) {
	x.prev, x.next = t.ring.prev, &t.ring
	x.prev.next, x.next.prev = x, x
	t.count++
}

func (t *sessionTable) unlinkLocked(x *session) {
	x.prev.next, x.next.prev = x.next, x.prev
	x.prev, x.next = nil, nil
	t.count--
}

// touch records that x has moved a datagram.
func (t *sessionTable) touch(x *session, now time.Duration) {
	x.last.Store(int64(now))
	if now-time.Duration(x.listed.Load()) < relist(x.service.spec.Load().sessionIdle(false)) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if x.next != nil {
		t.unlinkLocked(x)
		t.linkLocked(x)
		x.listed.Store(int64(now))
	}
}

// remove removes x if it is in the table.
func (t *sessionTable) remove(x *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x.next == nil {
		return
	}
	t.unlinkLocked(x)
	t.unbindLocked(x)
	t.signalLocked()
}

// unbind makes the next datagram of x's client begin another session. x still receives answers.
func (t *sessionTable) unbind(x *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unbindLocked(x)
}

func (t *sessionTable) unbindLocked(x *session) {
	if t.byKey[x.key] == x {
		delete(t.byKey, x.key)
	}
}

// oldest returns the session that has been idle longest, or nil. A flood of new clients turns the list over before
// active sessions relist themselves. Therefore oldest moves a session to the end of the list if the session was active
// since it was listed. To bound its cost, oldest looks at only 8 sessions.
func (t *sessionTable) oldest() *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found *session
	for range min(t.count, 8) {
		x := t.ring.next
		last := x.last.Load()
		if last == x.listed.Load() {
			return x
		}
		if found == nil || last < found.last.Load() {
			found = x
		}
		t.unlinkLocked(x)
		t.linkLocked(x)
		x.listed.Store(last)
	}
	return found
}

// nextToExpire returns the session that expires next, and the time until then.
func (t *sessionTable) nextToExpire(now time.Duration) (*session, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.ring.next
	if x == &t.ring {
		return nil, time.Hour
	}
	// All sessions have the same timeout, so the first in the list expires first.
	idle := x.service.spec.Load().sessionIdle(t.draining)
	return x, time.Duration(x.last.Load()) + idle - now
}

// snapshot returns all sessions.
func (t *sessionTable) snapshot() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*session, 0, t.count)
	for x := t.ring.next; x != &t.ring; x = x.next {
		out = append(out, x)
	}
	return out
}

func (t *sessionTable) isDraining() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.draining
}

// drain stops new sessions and makes the present ones expire soon. drain returns a channel that is closed when all
// sessions are gone.
func (t *sessionTable) drain() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.draining {
		t.draining = true
		t.signalLocked()
		t.wakeLocked()
	}
	return t.empty
}

func (t *sessionTable) signalLocked() {
	if t.draining && t.count == 0 {
		select {
		case <-t.empty:
		default:
			close(t.empty)
		}
	}
}

// wake makes the expiring goroutine check again, because the next expiry may be sooner.
func (t *sessionTable) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wakeLocked()
}

func (t *sessionTable) wakeLocked() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

// waitFor waits for d, or until the next expiry may be sooner. waitFor returns false if done is closed.
func (t *sessionTable) waitFor(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return false
	case <-t.woken:
	case <-timer.C:
	}
	return true
}
