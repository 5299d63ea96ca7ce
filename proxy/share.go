package proxy

import "sync/atomic"

// A share is the part of a budget that one service has. A take or a release costs one atomic operation below the floor,
// and two above it. All methods may be called concurrently.
type share struct {
	budget *budget
	state  atomic.Uint64 // descriptors taken; the lower half has the floor

	// Guarded by the budget's lock.
	goal    int64 // what the floor of the share should be
	waiters []*waiter
	inTurn  bool // whether the share is in budget.queue
}

func pack(taken, floor int64) uint64 { return uint64(taken)<<32 | uint64(floor) }

func unpack(state uint64) (taken, floor int64) { return int64(state >> 32), int64(uint32(state)) }

func (s *share) load() (taken, floor int64) { return unpack(s.state.Load()) }

// descriptors returns what s has taken and what it may take.
func (s *share) descriptors() Descriptors {
	taken, floor := s.load()
	return Descriptors{Taken: taken, Floor: floor, Ceiling: s.budget.ceiling.Load()}
}

// take takes all n descriptors, or none and returns false. take does not wait, and it does not overtake waiting shares.
func (s *share) take(n int64) bool { return s.draw(n, 0, orderly) }

// release gives back n descriptors.
func (s *share) release(n int64) {
	if freed := s.drop(n); freed > 0 {
		s.budget.common.Add(freed)
	}
	s.budget.serve(s)
}

// pass gives n descriptors of s to another share. If the other share may not have them, pass releases them and returns
// false.
func (s *share) pass(to *share, n int64) bool {
	if s == to {
		return true
	}
	freed := s.drop(n)
	if to.draw(n, freed, orderly) {
		return true
	}
	s.budget.common.Add(freed)
	s.budget.serve(s)
	return false
}

// drop reduces taken by n. drop returns how many of these descriptors were above the floor; the caller must put them
// into common or into another share.
func (s *share) drop(n int64) (freed int64) {
	for {
		old := s.state.Load()
		taken, floor := unpack(old)
		if s.state.CompareAndSwap(old, pack(taken-n, floor)) {
			return max(taken, floor) - max(taken-n, floor)
		}
	}
}

// A claim says when a share may take from common.
type claim int

const (
	never   claim = iota
	orderly       // the share may take only if no share waits
	served        // the share is the first that waits, and the caller holds the budget's lock
	ahead         // the share may always take
)

// draw takes all n descriptors, or none and returns false. Descriptors above the floor come first from credit, which
// the caller provides, and then from common. Unused credit goes to common.
func (s *share) draw(n, credit int64, c claim) bool {
	b := s.budget
	for {
		old := s.state.Load()
		taken, floor := unpack(old)
		short := max(taken+n, floor) - max(taken, floor) - credit
		if short > 0 && !b.takeCommon(short, c) {
			if s.state.Load() != old {
				continue // the share may be below its floor by now
			}
			return false
		}
		if s.state.CompareAndSwap(old, pack(taken+n, floor)) {
			b.giveCommon(-short, c)
			return true
		}
		b.giveCommon(short, c)
	}
}

// takeCommon takes n from common if c allows it. takeCommon returns false if c does not allow it, or if common has less
// than n.
func (b *budget) takeCommon(n int64, c claim) bool {
	if c == never || c == orderly && b.waiting.Load() {
		return false
	}
	for have := b.common.Load(); have >= n; have = b.common.Load() {
		if b.common.CompareAndSwap(have, have-n) {
			return true
		}
	}
	return false
}

// giveCommon gives n to common. giveCommon does nothing if n is zero or negative.
func (b *budget) giveCommon(n int64, c claim) {
	if n <= 0 {
		return
	}
	b.common.Add(n)
	if c != served { // otherwise the caller serves the waiters
		b.serve(nil)
	}
}

// setFloorLocked moves the floor towards its goal, as far as common allows. setFloorLocked reports whether the floor is
// at its goal.
func (s *share) setFloorLocked() bool {
	b := s.budget
	for {
		old := s.state.Load()
		taken, floor := unpack(old)
		need := max(taken, s.goal) - max(taken, floor)
		got := need
		for got > 0 && !b.takeCommon(got, served) {
			got = min(need, b.common.Load())
		}
		to := s.goal - (need - got)
		if s.state.CompareAndSwap(old, pack(taken, to)) {
			b.giveCommon(-need, served)
			return to == s.goal
		}
		b.giveCommon(got, served)
	}
}

// A bound is how much a share may have before its UDP sessions end for other clients.
type bound int

const (
	itsFloor  bound = iota
	equalPart       // the equal part, or the floor if it is higher
	itsPorts        // the share's floor of local ports
)

// exceeds reports whether s has more than the bound.
func (s *share) exceeds(m bound) bool {
	taken, limit := s.load()
	switch m {
	case equalPart:
		limit = max(limit, s.budget.equal.Load())
	case itsPorts:
		limit = s.budget.ownPorts.Load()
	}
	return taken > limit
}

// belowEqual reports whether s, with n more, would have at most an equal part.
func (s *share) belowEqual(n int64) bool {
	taken, _ := s.load()
	return taken+n <= s.budget.equal.Load()
}

// atCeiling reports whether s, with n more, would be above its ceiling. If it returns false and s gets no descriptors,
// the process is out of descriptors.
func (s *share) atCeiling(n int64) bool {
	taken, _ := s.load()
	return taken+n > s.budget.ceiling.Load()
}
