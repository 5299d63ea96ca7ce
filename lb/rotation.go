package lb

import "sync"

// A rotation is the order in which one service's endpoints take turns.
//
// Picture a fluid that flows to all endpoints at once, to each in proportion to its weight: after t of W picks (W is
// the sum of the weights), an endpoint of weight w is due t·w/W turns. The rotation hands out whole turns so that no
// endpoint is ever ahead of the fluid or behind it by more than Δ = 1 - 1/(2n-2) turns, which is the best that n
// endpoints allow in general:
//
//	|turns taken - t·w/W| <= Δ, at every t
//
// Each turn k of an endpoint therefore has a window of picks. It opens when taking the turn no longer puts the
// endpoint more than Δ ahead, and closes when not taking it puts the endpoint more than Δ behind. Of the turns whose
// window is open, the one whose window closes first is taken ("The chairman assignment problem", Tijdeman, 1980).
// With equal weights this is plain round robin.
//
// An endpoint that may not serve now, because it is ejected, or full, or starting slowly, lets its turn pass: the
// turn counts as taken, and the next one comes. So the turns of all others stay what they are, and when the endpoint
// serves again it comes in at its place, without a burst: what it missed is not owed to it. Clients who have tried
// some endpoints already pick from a rotation of their own, in which those pass: taking turns out of the other one,
// clients who need two could have the same endpoint come first for ever.
//
// An update changes W and the endpoints, but what an endpoint was owed or had in advance, its lag, carries over as
// the phase of its windows. So no number of updates can starve an endpoint or send a burst to one.
//
// A pick costs O(log n) under a mutex that is held for some tens of nanoseconds. A mutex rather than a lock-free
// ring, because a pick is a decision over the state of all endpoints, and because exactness over concurrent picks
// and updates is worth more than the nanoseconds: a pick is made for a connection, which costs a thousand times
// more. Once a round, a pick costs O(n): see openAll. With 65,536 endpoints that is some hundred microseconds.
type rotation struct {
	mu      sync.Mutex
	slots   []slot  // which Members are in which place only replace changes
	total   int64   // W
	delta   float64 // Δ
	elapsed int64   // t, in [0, W): both t and the turns taken are set back once per W picks

	// Every slot is in exactly one of these.
	open   []int32 // heap of slots whose window is open, by the end of the window
	closed []int32 // heap of slots whose window opens later, by its start

	cursor int // see outOfTurn
}

// A slot is one endpoint's place in the rotation.
type slot struct {
	*Member
	taken      int64   // turns since t was 0
	phase      float64 // lag when t was 0, in turns
	start, end float64 // window of the next turn, in picks
	credit     float64 // what a slow start has saved up for the next turn it serves
}

// maxPasses bounds how many turns may pass in one pick. More are needed only where the heaviest endpoints are out.
const maxPasses = 64

// pick takes the next turn of an endpoint that may serve. Others let theirs pass. It returns nil if there is none; of
// more than manyMembers, also if none has come after maxPasses turns.
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

// popNext pops the slot whose turn it is.
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

// opens reports whether the window of a closed slot is open by now.
func (r *rotation) opens() bool { return len(r.closed) > 0 && r.isOpen(r.closed[0]) }

func (r *rotation) isOpen(i int32) bool { return r.slots[i].start <= float64(r.elapsed)+epsilon }

// maxMoves is how many windows may open in one pick before it pays to open all at once: where weights are equal, the
// windows of all endpoints open together, once a round.
const maxMoves = 64

// openAll moves all slots whose windows are open by now.
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

// takeTurn takes the turn of a slot that was popped, and puts it back.
func (r *rotation) takeTurn(i int32) {
	s := &r.slots[i]
	s.taken++
	r.setWindow(s)
	push(&r.closed, r.byStart, i)
	if r.elapsed++; r.elapsed == r.total {
		r.rebase()
	}
}

// servesTurn tells whether a slot that starts slowly serves this turn.
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

// pickOutOfTurn looks for whoever may serve at all, when too many turns have passed. It does not count as a turn.
func (r *rotation) pickOutOfTurn(q *query) *Member {
	for range r.slots {
		r.cursor = (r.cursor + 1) % len(r.slots)
		if m := r.slots[r.cursor].Member; q.serves(m, nil) {
			return m
		}
	}
	return nil
}

// rebase starts the count of picks and turns again after W picks, so that numbers stay small and exact for ever.
// All windows move by the same amount, so the heaps stay as they are.
func (r *rotation) rebase() {
	r.elapsed = 0
	for i := range r.slots {
		s := &r.slots[i]
		s.taken -= int64(s.Weight)
		r.setWindow(s)
	}
}

// epsilon is what floats that stand for equal numbers may differ by, in picks.
const epsilon = 1e-6

func (r *rotation) setWindow(s *slot) {
	perTurn := float64(r.total) / float64(s.Weight)
	turn := float64(s.taken) - s.phase
	s.start = (turn+1-r.delta)*perTurn - 1
	s.end = (turn + r.delta) * perTurn
}

// replace makes members, of distinct IDs, the rotation's set. Those that stay, by their ID, keep their place in the
// order and their lag; new ones come last. Only one replace may run at a time. Picks wait for the part of it that looks
// at lags, which is some milliseconds for 65,536 members.
func (r *rotation) replace(members []*Member) {
	byID := make(map[string]*Member, len(members))
	for _, m := range members {
		byID[m.ID] = m
	}
	slots := make([]slot, 0, len(members))
	places := make([]int, 0, len(members)) // where those that stay are now
	for i := range r.slots {
		if m, ok := byID[r.slots[i].ID]; ok {
			slots, places = append(slots, slot{Member: m}), append(places, i)
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
	for i, place := range places {
		old := &r.slots[place]
		slots[i].phase, slots[i].credit = r.lagLocked(old), old.credit
	}
	r.slots, r.open, r.closed, r.elapsed, r.total = slots, open, closed, 0, 0
	r.resetLocked()
}

// lagLocked is how many turns s is owed; negative, had in advance. It is within one.
func (r *rotation) lagLocked(s *slot) float64 {
	due := float64(r.elapsed) * float64(s.Weight) / float64(r.total)
	return max(-1, min(1, s.phase+due-float64(s.taken)))
}

// resetLocked sets all windows by the phases.
func (r *rotation) resetLocked() {
	r.delta = 1 - 1/max(1, float64(2*len(r.slots)-2)) // a single endpoint is never ahead nor behind
	owed := 0.0
	for i := range r.slots {
		r.total += int64(r.slots[i].Weight)
		owed += r.slots[i].phase
	}
	for i := range r.slots {
		s := &r.slots[i]
		// Who left took its lag along; share that out, for the windows fit together only if the phases add up to
		// nothing.
		s.phase -= owed * float64(s.Weight) / float64(r.total)
		r.setWindow(s)
	}
	heapify(r.closed, r.byStart)
}

// Ties go to the earlier place in the order. This is what makes equal weights a plain round robin.

func (r *rotation) byStart(i, j int32) bool {
	a, b := r.slots[i].start, r.slots[j].start
	return a < b-epsilon || a < b+epsilon && i < j
}

func (r *rotation) byEnd(i, j int32) bool {
	a, b := r.slots[i].end, r.slots[j].end
	return a < b-epsilon || a < b+epsilon && i < j
}
