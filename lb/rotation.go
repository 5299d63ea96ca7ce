package lb

import "sync"

// A rotation is the order in which one service's endpoints take turns.
//
// Picture a fluid that flows to all endpoints at once, to each in proportion to its weight: after t of W picks (W is the sum of
// the weights), an endpoint of weight w is due t·w/W turns. The rotation hands out whole turns so that no endpoint is ever ahead
// of the fluid or behind it by more than Δ = 1 - 1/(2n-2) turns, which is the best that n endpoints allow in general:
//
//	|turns taken - t·w/W| <= Δ, at every t
//
// Each turn k of an endpoint therefore has a window of picks. It opens when taking the turn no longer puts the endpoint more than Δ
// ahead, and closes when not taking it puts the endpoint more than Δ behind. Of the turns whose window is open, the one
// whose window closes first is taken ("The chairman assignment problem", Tijdeman, 1980). With equal weights this is plain
// round robin.
//
// An endpoint that may not serve now, because it is ejected, or full, or starting slowly, lets its turn pass: the turn counts as
// taken, and the next one comes. So the turns of all others stay what they are, and when the endpoint serves again it comes in at
// its place, without a burst: what it missed is not owed to it. Clients who have tried some endpoints already pick from a rotation of
// their own, in which those pass: taking turns out of the other one, clients who need two could have the same endpoint come
// first for ever.
//
// An update changes W and the endpoints, but what an endpoint was owed or had in advance, its lag, carries over as the phase of
// its windows. So no number of updates can starve an endpoint or send a burst to one.
//
// A pick costs O(log n) under a mutex that is held for some tens of nanoseconds. A mutex rather than a lock-free ring, because a pick is
// a decision over the state of all endpoints, and because exactness over concurrent picks and updates is worth more than the
// nanoseconds: a pick is made for a connection, which costs a thousand times more.
type rotation struct {
	mu    sync.Mutex
	index map[string]int32 // of endpoint ID to place in slots
	slots []slot
	total int64   // W
	delta float64 // Δ
	now   int64   // t, in [0, W): both t and the turns taken are set back once per W picks

	// Every slot is in exactly one of these.
	open   []int32 // heap of slots whose window is open, by the end of the window
	closed []int32 // heap of slots whose window opens later, by its start

	last int // see outOfTurn
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

// next takes the next turn of an endpoint that may serve. Others let theirs pass.
func (r *rotation) next(q *query) *Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range min(maxPasses, 2*len(r.slots)) {
		i := r.turn()
		s := &r.slots[i]
		serves := !q.avoids(s.Member) && q.admits(s.Member) && s.comesUp(q)
		r.take(i)
		if serves {
			return s.Member
		}
	}
	return r.outOfTurn(q)
}

// turn pops the slot whose turn it is.
func (r *rotation) turn() int32 {
	for len(r.closed) > 0 && r.slots[r.closed[0]].start <= float64(r.now)+noise {
		r.push(&r.open, r.byEnd, r.pop(&r.closed, r.byStart))
	}
	if len(r.open) > 0 {
		return r.pop(&r.open, r.byEnd)
	}
	return r.pop(&r.closed, r.byStart)
}

// take takes the turn of a slot that was popped, and puts it back.
func (r *rotation) take(i int32) {
	s := &r.slots[i]
	s.taken++
	r.setWindow(s)
	r.push(&r.closed, r.byStart, i)
	if r.now++; r.now == r.total {
		r.setBack()
	}
}

// comesUp tells whether a slot that starts slowly serves this turn.
func (s *slot) comesUp(q *query) bool {
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

// outOfTurn looks for whoever may serve at all, when too many turns have passed. It does not count as a turn.
func (r *rotation) outOfTurn(q *query) *Member {
	for range r.slots {
		r.last = (r.last + 1) % len(r.slots)
		if m := r.slots[r.last].Member; !q.avoids(m) && q.admits(m) {
			return m
		}
	}
	return nil
}

// setBack starts the count of picks and turns again after W picks, so that numbers stay small and exact for ever. All windows move
// by the same amount, so the heaps stay as they are.
func (r *rotation) setBack() {
	r.now = 0
	for i := range r.slots {
		s := &r.slots[i]
		s.taken -= int64(s.Weight)
		r.setWindow(s)
	}
}

// noise is what floats that stand for equal numbers may differ by, in picks.
const noise = 1e-6

func (r *rotation) setWindow(s *slot) {
	perTurn := float64(r.total) / float64(s.Weight)
	turn := float64(s.taken) - s.phase
	s.start = (turn+1-r.delta)*perTurn - 1
	s.end = (turn + r.delta) * perTurn
}

// replace makes members, of distinct IDs, the rotation's set. Those that stay, by their ID, keep their place in the order and their
// lag; new ones come last.
func (r *rotation) replace(members []*Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.equalLocked(members) {
		return
	}
	byID := make(map[string]*Member, len(members))
	for _, m := range members {
		byID[m.ID] = m
	}
	slots := make([]slot, 0, len(members))
	for i := range r.slots {
		old := &r.slots[i]
		if m, ok := byID[old.ID]; ok {
			slots = append(slots, slot{Member: m, phase: r.lagLocked(old), credit: old.credit})
			delete(byID, m.ID)
		}
	}
	for _, m := range members {
		if _, ok := byID[m.ID]; ok {
			slots = append(slots, slot{Member: m})
		}
	}
	r.resetLocked(slots)
}

// lagLocked is how many turns s is owed; negative, had in advance. It is within one.
func (r *rotation) lagLocked(s *slot) float64 {
	due := float64(r.now) * float64(s.Weight) / float64(r.total)
	return max(-1, min(1, s.phase+due-float64(s.taken)))
}

func (r *rotation) resetLocked(slots []slot) {
	r.slots, r.now, r.total = slots, 0, 0
	r.index = make(map[string]int32, len(slots))
	r.open, r.closed = make([]int32, 0, len(slots)), make([]int32, 0, len(slots))
	r.delta = 1 - 1/max(1, float64(2*len(slots)-2)) // a single endpoint is never ahead nor behind
	owed := 0.0
	for i := range slots {
		r.index[slots[i].ID] = int32(i)
		r.total += int64(slots[i].Weight)
		owed += slots[i].phase
	}
	for i := range slots {
		s := &slots[i]
		// Who left took its lag along; share that out, for the windows fit together only if the phases add up to nothing.
		s.phase -= owed * float64(s.Weight) / float64(r.total)
		r.setWindow(s)
		r.push(&r.closed, r.byStart, int32(i))
	}
}

func (r *rotation) equalLocked(members []*Member) bool {
	if len(members) != len(r.slots) {
		return false
	}
	for _, m := range members {
		if i, ok := r.index[m.ID]; !ok || r.slots[i].Member != m {
			return false
		}
	}
	return true
}

// Ties go to the earlier place in the order. This is what makes equal weights a plain round robin.

func (r *rotation) byStart(i, j int32) bool {
	a, b := r.slots[i].start, r.slots[j].start
	return a < b-noise || a < b+noise && i < j
}

func (r *rotation) byEnd(i, j int32) bool {
	a, b := r.slots[i].end, r.slots[j].end
	return a < b-noise || a < b+noise && i < j
}

// push and pop keep a binary min-heap of slots. Not container/heap: that allocates to push.

func (r *rotation) push(heap *[]int32, less func(i, j int32) bool, x int32) {
	h := append(*heap, x) // within capacity: a heap holds each slot once at most
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !less(h[i], h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	*heap = h
}

func (r *rotation) pop(heap *[]int32, less func(i, j int32) bool) int32 {
	h := *heap
	x := h[0]
	n := len(h) - 1
	h[0] = h[n]
	h = h[:n]
	for i := 0; ; {
		least, l := i, 2*i+1
		if l < n && less(h[l], h[least]) {
			least = l
		}
		if l+1 < n && less(h[l+1], h[least]) {
			least = l + 1
		}
		if least == i {
			break
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
	*heap = h
	return x
}
