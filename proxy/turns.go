package proxy

import (
	"context"
	"slices"
	"time"
)

// This is how shares wait for descriptors, one after the other, see budget.

// A waiter is told once, by granted, when its share has taken n descriptors for it.
type waiter struct {
	share   *share
	n       int64
	granted func() // must not wait
}

// wait has w wait for its turn.
func (b *budget) wait(w *waiter) {
	s := w.share
	b.mu.Lock()
	s.waiters = append(s.waiters, w)
	if !s.inTurn {
		s.inTurn = true
		b.queue = append(b.queue, s)
	}
	b.waiting.Store(true) // first: what is given back from here on is seen below, or by who gives it back
	granted := b.serveLocked(s.grantOwnLocked(nil))
	b.mu.Unlock()
	tell(granted)
}

// withdraw has w not wait any more. It returns false if w has had its turn: the descriptors are the caller's then.
func (b *budget) withdraw(w *waiter) bool {
	s := w.share
	b.mu.Lock()
	i := slices.Index(s.waiters, w)
	if i >= 0 {
		s.waiters = slices.Delete(s.waiters, i, i+1)
	}
	granted := b.serveLocked(s.grantOwnLocked(nil))
	b.mu.Unlock()
	tell(granted)
	return i >= 0
}

// serve gives what there is to those who wait. If s is not nil, it has just given something back.
func (b *budget) serve(s *share) {
	if !b.waiting.Load() {
		return
	}
	b.mu.Lock()
	var granted []*waiter
	if s != nil {
		granted = s.grantOwnLocked(granted)
	}
	granted = b.serveLocked(granted)
	b.mu.Unlock()
	tell(granted)
}

// serveLocked sets aside what is owed, and then lets shares have their turns. It adds to granted the waiters who are
// to be told when the lock is not held any more.
func (b *budget) serveLocked(granted []*waiter) []*waiter {
	for len(b.owed) > 0 {
		s := b.owed[0]
		paid := s.setFloorLocked()
		granted = s.grantOwnLocked(granted)
		if !paid {
			break
		}
		b.owed = b.owed[1:]
	}
	for len(b.owed) == 0 && len(b.queue) > 0 {
		s := b.queue[0]
		if len(s.waiters) > 0 && !s.draw(s.waiters[0].n, 0, served) {
			break
		}
		b.queue = b.queue[1:]
		if len(s.waiters) > 0 {
			granted = append(granted, s.waiters[0])
			s.waiters = s.waiters[1:]
		}
		if s.inTurn = len(s.waiters) > 0; s.inTurn {
			b.queue = append(b.queue, s)
		}
	}
	b.waiting.Store(len(b.owed)+len(b.queue) > 0)
	return granted
}

// grantOwnLocked gives what is set aside for s to those who wait for it.
func (s *share) grantOwnLocked(granted []*waiter) []*waiter {
	for len(s.waiters) > 0 && s.draw(s.waiters[0].n, 0, never) {
		granted = append(granted, s.waiters[0])
		s.waiters = s.waiters[1:]
	}
	return granted
}

func tell(granted []*waiter) {
	for _, w := range granted {
		w.granted()
	}
}

// roomPoll is how often a TCP listener that waits for its turn asks again whether UDP sessions may end for it.
const roomPoll = 20 * time.Millisecond

// acquire takes n descriptors, and waits for them until ctx ends. Meanwhile it calls reclaim now and then, which may
// take them too.
func (s *share) acquire(ctx context.Context, n int64, reclaim func() bool) error {
	granted := make(chan struct{})
	w := &waiter{share: s, n: n, granted: func() { close(granted) }}
	s.budget.wait(w)
	poll := time.NewTicker(roomPoll)
	defer poll.Stop()
	for {
		select {
		case <-granted:
			return nil
		case <-ctx.Done():
			if !s.budget.withdraw(w) {
				s.release(n)
			}
			return ctx.Err()
		case <-poll.C:
			if !reclaim() {
				continue
			}
			if !s.budget.withdraw(w) {
				s.release(n) // it has them twice
			}
			return nil
		}
	}
}
