package lb

import (
	"net/netip"
	"time"
)

// A query is one pick as policies see it. It holds nothing that may be kept, so that it need not be allocated.
type query struct {
	tried        *Tried
	panicking    bool          // ejected members may be picked
	skipTroubled bool          // members that have failed since they were last reached may not
	slowStart    time.Duration // slow start; 0: no member is starting slowly
	now          instant       // with slow, and where clients stick
	maxOpen      int64         // open uses of each member; 0: no limit
	examined     int           // how many members were looked at so far; a test bounds it
	sawFull      bool          // the answer: there was one that would have served, had it had room
}

// available tells whether m may serve anybody now.
func (q *query) available(m *Member) bool { return q.healthy(m) && q.hasRoom(m) }

// serves reports whether m may serve this client now, and is not the member not, which may be nil.
func (q *query) serves(m, not *Member) bool {
	q.examined++
	return m != not && !q.avoids(m) && q.available(m)
}

// avoids tells whether m is none for this client, though others may have it.
func (q *query) avoids(m *Member) bool {
	return q.tried.Has(m.ID) || q.skipTroubled && m.health.troubled.Load()
}

// healthy tells whether m may serve as far as its health goes.
func (q *query) healthy(m *Member) bool { return q.panicking || m.health.ejectedUntil.Load() == 0 }

// hasRoom tells whether m may have one more use.
func (q *query) hasRoom(m *Member) bool {
	if q.maxOpen == 0 || m.open.Load() < q.maxOpen {
		return true
	}
	q.sawFull = true
	return false
}

// err is the error of a pick that found m.
func (q *query) err(m *Member) error {
	switch {
	case m != nil:
		return nil
	case q.sawFull:
		return ErrFull
	}
	return ErrMissingEndpoints
}

// minShare is the share that an endpoint begins with when it starts slowly: with none it would never get anywhere.
const minShare = 0.1

// share is how much of its weight m is worth now: 1, but while it starts slowly.
func (q *query) share(m *Member) float64 {
	if q.slowStart == 0 {
		return 1
	}
	began := m.servesSince()
	if began == 0 || q.now >= began.add(q.slowStart) {
		return 1
	}
	return max(minShare, float64(q.now.sub(began))/float64(q.slowStart))
}

// pick picks the member that the client is with already, or else asks the policy.
func (st *state) pick(src netip.Addr, q *query) *Member {
	if st.sticky == nil {
		return st.choose(src, q)
	}
	m := st.sticky.get(src, q.now, st.options.Sticky)
	stays := m != nil && !m.Left() && !q.avoids(m) && q.healthy(m)
	if stays && q.hasRoom(m) {
		return m
	}
	m = st.choose(src, q)
	if m != nil && !stays { // else it comes back when there is room again
		st.sticky.put(src, m, q.now)
	}
	return m
}

// choose asks the policy.
func (st *state) choose(src netip.Addr, q *query) *Member {
	switch {
	case st.least != nil:
		return st.least.pick(q)
	case st.random != nil:
		return st.random.pick(q)
	case st.hash != nil:
		return st.hash.pick(src, q)
	}
	turns := st.rotation
	if q.tried.Len() > 0 {
		if turns = st.retries; turns == nil { // there are too many members for two rotations
			return st.roster.sample(q, nil)
		}
	}
	if !st.roster.isLarge() {
		return turns.pick(q)
	}
	if !st.roster.scarce(q) {
		if m := turns.pick(q); m != nil {
			return m
		}
	}
	return st.roster.search(q, nil)
}
