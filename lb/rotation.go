package lb

import "sync"

// A rotation gives the endpoints of one service turns in proportion to their weights, evenly spread.
//
// Let W be the sum of the weights. After t picks, an endpoint of weight w is due t·w/W turns. Turns are whole numbers,
// so an endpoint cannot always have exactly that many. The rotation keeps each endpoint within Δ = 1 - 1/(2n-2) turns
// of its due number, which is the best possible bound for n endpoints in general:
//
//	|turns taken - t·w/W| <= Δ, at every t
//
// Each turn of an endpoint therefore has a window of picks. The window opens when taking the turn no longer puts the
// endpoint more than Δ ahead. The window closes when not taking the turn puts the endpoint more than Δ behind. Of the
// turns with an open window, the rotation takes the turn with the window that closes first ("The chairman assignment
// problem", Tijdeman, 1980). With equal weights the result is plain round robin.
//
// An endpoint that may not serve now (ejected, full or in a slow start) lets its turn pass. The passed turn counts as
// taken, and the next turn follows. The turns of all other endpoints stay as they are. When the endpoint serves again,
// it gets no burst, because the rotation does not owe it the passed turns.
//
// Clients that have already tried endpoints pick from a second rotation, in which the tried endpoints let their turns
// pass. With only one rotation, clients that need two picks could get the same endpoint first every time.
//
// An update changes W and the endpoints. The lag of an endpoint is the number of turns that it is owed; a negative lag
// means turns taken in advance. An update carries the lag over as the phase of the endpoint's windows. With the lag
// carried over, no number of updates can starve an endpoint or send a burst to it.
//
// A pick costs O(log n) under a mutex that is held for some tens of nanoseconds. The rotation uses a mutex and not a
// lock-free ring, because a pick depends on the state of all endpoints. With a mutex, picks also stay exact during
// concurrent picks and updates. A connection costs a thousand times more than its pick. Once a round, a pick costs
// O(n), see openAll: some hundred microseconds for 65,536 endpoints.
type rotation struct {
	mu      sync.Mutex
	slots   []slot  // only replace changes which Member is in which slot
	total   int64   // W
	delta   float64 // Δ
	elapsed int64   // t, in [0, W), see rebase

	// Every slot is in exactly one of these two heaps.
	open   []int32 // heap of slots with an open window, ordered by the end of the window
	closed []int32 // heap of slots with a window that opens later, ordered by its start

	cursor int // index of the slot at which pickOutOfTurn stopped
}

// A slot is the position of one endpoint in the rotation.
type slot struct {
	*Member
	taken      int64   // turns taken since t was 0
	phase      float64 // lag when t was 0, in turns
	start, end float64 // window of the next turn, in picks
	credit     float64 // sum of the shares of passed turns in a slow start; at 1, the slot serves
}

// maxPasses limits how many turns may pass in one pick. More turns pass only when the heaviest endpoints may not serve.
const maxPasses = 64

// pick takes turns until it finds an endpoint that may serve, and returns that endpoint. pick returns nil if no
// endpoint may serve. In a set of more than manyMembers, pick also returns nil after maxPasses turns have passed.
func (r *rotation) pick(q *query) *Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range min(maxPasses, 2*len(r.slots)) {
		i := r.popNext()
		s := &r.slots[i]
		serves := q.serves(s.Member, nil) && s.servesTurn(q)
		r.takeTurn(i)
		if serves {
			return s.Member
		}
	}
	if len(r.slots) > manyMembers {
		return nil
	}
	return r.pickOutOfTurn(q)
}

// popNext removes the slot with the next turn from its heap, and returns the index of the slot.
func (r *rotation) popNext() int32 {
	for moved := 0; r.opens(); moved++ {
		if moved == maxMoves {
			r.openAll()
			break
		}
		push(&r.open, r.byEnd, pop(&r.closed, r.byStart))
	}
	if len(r.open) > 0 {
		return pop(&r.open, r.byEnd)
	}
	return pop(&r.closed, r.byStart)
}

// opens reports whether the window of a slot in closed is open by now.
func (r *rotation) opens() bool { return len(r.closed) > 0 && r.isOpen(r.closed[0]) }

func (r *rotation) isOpen(i int32) bool { return r.slots[i].start <= float64(r.elapsed)+epsilon }

// maxMoves is how many slots a pick moves to open one by one. To move more slots, the pick rebuilds both heaps. If all
// weights are equal, the windows of all endpoints open at the same time, once a round.
const maxMoves = 64

// openAll moves all slots with windows that are open by now from closed to open.
func (r *rotation) openAll() {
	closed := r.closed[:0]
	for _, i := range r.closed {
		if r.isOpen(i) {
			r.open = append(r.open, i)
		} else {
			closed = append(closed, i)
		}
	}
	r.closed = closed
	heapify(r.open, r.byEnd)
	heapify(r.closed, r.byStart)
}

// takeTurn takes the turn of a popped slot, and pushes the slot back.
func (r *rotation) takeTurn(i int32) {
	s := &r.slots[i]
	s.taken++
	r.setWindow(s)
	push(&r.closed, r.byStart, i)
	if r.elapsed++; r.elapsed == r.total {
		r.rebase()
	}
}

// servesTurn reports whether a slot serves this turn. During a slow start, a slot serves a part of its turns.
func (s *slot) servesTurn(q *query) bool {
	share := q.share(s.Member)
	if share == 1 {
		return true
	}
	if s.credit += share; s.credit < 1 {
		return false
	}
	s.credit--
	return true
}

// pickOutOfTurn returns the next endpoint in order that may serve. pickOutOfTurn is for picks in which too many turns
// have passed. The result counts as no turn.
func (r *rotation) pickOutOfTurn(q *query) *Member {
	for range r.slots {
		r.cursor = (r.cursor + 1) % len(r.slots)
		if m := r.slots[r.cursor].Member; q.serves(m, nil) {
			return m
		}
	}
	return nil
}

// rebase subtracts W from the count of picks, and subtracts the turns that are due for W picks from each slot. So the
// numbers stay small and exact. All windows move by the same amount, so the heaps stay valid.
func (r *rotation) rebase() {
	r.elapsed = 0
	for i := range r.slots {
		s := &r.slots[i]
		s.taken -= int64(s.Weight)
		r.setWindow(s)
	}
}

// epsilon is the rounding error that comparisons of windows tolerate, in picks.
const epsilon = 1e-6

// setWindow computes the window of the next turn of s.
func (r *rotation) setWindow(s *slot) {
	perTurn := float64(r.total) / float64(s.Weight)
	turn := float64(s.taken) - s.phase
	s.start = (turn+1-r.delta)*perTurn - 1
	s.end = (turn + r.delta) * perTurn
}

// replace sets the members of the rotation. The members must have distinct IDs. A member with an unchanged ID keeps its
// position in the order and its lag. New members are appended. Calls of replace must not be concurrent. Picks wait
// while replace computes lags: some milliseconds for 65,536 members.
func (r *rotation) replace(members []*Member) {
	byID := make(map[string]*Member, len(members))
	for _, m := range members {
		byID[m.ID] = m
	}
	slots := make([]slot, 0, len(members))
	kept := make([]int, 0, len(members)) // indexes in r.slots of the members that stay
	for i := range r.slots {
		if m, ok := byID[r.slots[i].ID]; ok {
			slots, kept = append(slots, slot{Member: m}), append(kept, i)
			delete(byID, m.ID)
		}
	}
	for _, m := range members {
		if _, ok := byID[m.ID]; ok {
			slots = append(slots, slot{Member: m})
		}
	}
	open, closed := make([]int32, 0, len(slots)), make([]int32, len(slots))
	for i := range closed {
		closed[i] = int32(i)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	for i, index := range kept {
		old := &r.slots[index]
		slots[i].phase, slots[i].credit = r.lagLocked(old), old.credit
	}
	r.slots, r.open, r.closed, r.elapsed, r.total = slots, open, closed, 0, 0
	r.resetLocked()
}

// lagLocked returns how many turns s is owed, in [-1, 1]. The lag is negative if s has taken turns in advance.
func (r *rotation) lagLocked(s *slot) float64 {
	due := float64(r.elapsed) * float64(s.Weight) / float64(r.total)
	return max(-1, min(1, s.phase+due-float64(s.taken)))
}

// resetLocked computes all windows from the phases.
func (r *rotation) resetLocked() {
	r.delta = 1 - 1/max(1, float64(2*len(r.slots)-2)) // a single endpoint has no lag
	owed := 0.0
	for i := range r.slots {
		r.total += int64(r.slots[i].Weight)
		owed += r.slots[i].phase
	}
	for i := range r.slots {
		s := &r.slots[i]
		// Windows fit together only if the sum of the phases is zero. Share out the lag of the endpoints that left.
		s.phase -= owed * float64(s.Weight) / float64(r.total)
		r.setWindow(s)
	}
	heapify(r.closed, r.byStart)
}

// Ties go to the earlier slot. With this rule, equal weights give a plain round robin.

func (r *rotation) byStart(i, j int32) bool {
	a, b := r.slots[i].start, r.slots[j].start
	return a < b-epsilon || a < b+epsilon && i < j
}

func (r *rotation) byEnd(i, j int32) bool {
	a, b := r.slots[i].end, r.slots[j].end
	return a < b-epsilon || a < b+epsilon && i < j
}
