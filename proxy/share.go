package proxy

import "sync/atomic"

// A share is what one service has of a budget. To take or to give back is one atomic operation below the floor, and
// two above it. All methods may be called concurrently.
type share struct {
	budget *budget
	state  atomic.Uint64 // the descriptors taken and, in the lower half, the floor

	// Guarded by the budget's lock.
	goal    int64 // what the floor should be
	waiters []*waiter
	inTurn  bool // it is in budget.queue
}

func pack(taken, floor int64) uint64 { return uint64(taken)<<32 | uint64(floor) }

func unpack(state uint64) (taken, floor int64) { return int64(state >> 32), int64(uint32(state)) }

func (s *share) load() (taken, floor int64) { return unpack(s.state.Load()) }

// descriptors returns what s has and may have.
func (s *share) descriptors() Descriptors {
	taken, floor := s.load()
	return Descriptors{Taken: taken, Floor: floor, Ceiling: s.budget.ceiling.Load()}
}

// take takes n descriptors, all or none. It does not wait, and does not get ahead of shares that wait.
func (s *share) take(n int64) bool { return s.draw(n, 0, orderly) }

// release gives back n descriptors.
func (s *share) release(n int64) {
	if freed := s.drop(n); freed > 0 {
		s.budget.common.Add(freed)
	}
	s.budget.serve(s)
}

// pass gives n descriptors of s to another share. If that one may not have them, they are released and pass returns
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

// drop reduces what is taken by n. It returns how many of these are beyond the floor: the caller puts them somewhere.
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
	orderly       // when no share waits
	served        // the share is the first of those that wait, and the caller has the budget's lock
	ahead         // always
)

// draw takes n descriptors, all or none. Those beyond the floor come out of credit, which the caller has, and then
// out of common. Credit that is left over goes to common.
func (s *share) draw(n, credit int64, c claim) bool {
	b := s.budget
	for {
		old := s.state.Load()
		taken, floor := unpack(old)
		short := max(taken+n, floor) - max(taken, floor) - credit
		if short > 0 && !b.takeCommon(short, c) {
			if s.state.Load() != old {
				continue // it may be below its floor by now
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

// takeCommon takes n from common, if c lets it.
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

// giveCommon gives n to common, if that is more than nothing.
func (b *budget) giveCommon(n int64, c claim) {
	if n <= 0 {
		return
	}
	b.common.Add(n)
	if c != served { // else the caller serves those who wait
		b.serve(nil)
	}
}

// setFloorLocked moves the floor to its goal, as far as common allows, and tells whether it is there.
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

// A bound is what a share may have before UDP sessions end for others.
type bound int

const (
	itsFloor  bound = iota
	equalPart       // or its floor, if that is more
	itsPorts        // its floor, of ports
)

// exceeds tells whether s has more than the bound.
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

// belowEqual tells whether s would not have more than an equal part with n more.
func (s *share) belowEqual(n int64) bool {
	taken, _ := s.load()
	return taken+n <= s.budget.equal.Load()
}

// atCeiling tells whether s would have more than its ceiling with n more. If not, and it gets none, it is because all
// shares together have too much.
func (s *share) atCeiling(n int64) bool {
	taken, _ := s.load()
	return taken+n > s.budget.ceiling.Load()
}
