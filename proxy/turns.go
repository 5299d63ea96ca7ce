package proxy

import (
	"context"
	"slices"
	"time"
)

// This file implements the queue in which services wait for file descriptors, see budget.

// A waiter waits until its share has taken n descriptors for it. The function granted is called once, when the
// descriptors are taken.
type waiter struct {
	share   *share
	n       int64
	granted func() // called once n descriptors are taken; must not block
}

// wait queues w. When its descriptors are taken, w.granted is called, possibly before wait returns.
func (b *budget) wait(w *waiter) {
	s := w.share
	b.mu.Lock()
	s.waiters = append(s.waiters, w)
	if !s.inTurn {
		s.inTurn = true
		b.queue = append(b.queue, s)
	}
	b.waiting.Store(true) // before serveLocked: releases from here on are seen by it or call serve
	granted := b.serveLocked(s.grantOwnLocked(nil))
	b.mu.Unlock()
	tell(granted)
}

// withdraw removes w from the queue. withdraw returns false if w already has its descriptors, which then belong to the
// caller.
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

// serve grants free descriptors to waiters. If s is not nil, the share s has just released descriptors.
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

// serveLocked first sets aside the descriptors that are owed to floors, and then grants the rest to waiters in turn.
// serveLocked returns granted with the served waiters appended. The caller passes the result to tell after it has
// released the lock.
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

// grantOwnLocked gives the waiters of s the descriptors that are set aside for s. grantOwnLocked returns granted with
// these waiters appended.
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

// roomPoll is how often a TCP listener that waits for descriptors checks whether UDP sessions may end for it.
const roomPoll = 20 * time.Millisecond

// acquire takes n descriptors, and waits for them until ctx ends. Every roomPoll it calls reclaim. If reclaim returns
// true, reclaim has taken the descriptors.
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
				s.release(n) // granted has taken n too, so s has twice as many
			}
			return nil
		}
	}
}
