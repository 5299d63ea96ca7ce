package lb

import "net/netip"

// A query is one pick as policies see it. It holds nothing that may be kept, so that it need not be allocated.
type query struct {
	tried     *Tried
	panicking bool  // ejected members may be picked
	calm      bool  // members that have failed since they were last reached may not
	slow      int64 // slow start; 0: no member is starting slowly
	now       int64 // with slow, and where clients stick
	most      int64 // open uses of each member; 0: no limit
	looks     int   // how many members were looked at so far; a test bounds it
	full      bool  // the answer: there was one that would have served, had it had room
}

// admits tells whether m may serve anybody now.
func (q *query) admits(m *Member) bool { return q.fit(m) && q.room(m) }

// serves reports whether m may serve this client now, and is not the member not, which may be nil.
func (q *query) serves(m, not *Member) bool {
	q.looks++
	return m != not && !q.avoids(m) && q.admits(m)
}

// avoids tells whether m is none for this client, though others may have it.
func (q *query) avoids(m *Member) bool {
	return q.tried.Has(m.ID) || q.calm && m.health.troubled.Load()
}

// fit tells whether m may serve as far as its health goes.
func (q *query) fit(m *Member) bool { return q.panicking || m.health.until.Load() == 0 }

// room tells whether m may have one more use.
func (q *query) room(m *Member) bool {
	if q.most == 0 || m.open.Load() < q.most {
		return true
	}
	q.full = true
	return false
}

// why is the error of a pick that found m.
func (q *query) why(m *Member) error {
	switch {
	case m != nil:
		return nil
	case q.full:
		return ErrFull
	}
	return ErrMissingEndpoints
}

// leastShare is the share that an endpoint begins with when it starts slowly: with none it would never get anywhere.
const leastShare = 0.1

// share is how much of its weight m is worth now: 1, but while it starts slowly.
func (q *query) share(m *Member) float64 {
	if q.slow == 0 {
		return 1
	}
	began := m.began()
	if began == 0 || q.now >= began+q.slow {
		return 1
	}
	return max(leastShare, float64(q.now-began)/float64(q.slow))
}

// pick picks the member that the client is with already, or else asks the policy.
func (st *state) pick(src netip.Addr, q *query) *Member {
	if st.sticky == nil {
		return st.choose(src, q)
	}
	m := st.sticky.get(src, q.now, int64(st.options.Sticky))
	stays := m != nil && !m.Left() && !q.avoids(m) && q.fit(m)
	if stays && q.room(m) {
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
		return st.least.next(q)
	case st.random != nil:
		return st.random.next(q)
	case st.hash != nil:
		return st.hash.next(src, q)
	}
	turns := st.rotation
	if q.tried.Len() > 0 {
		if turns = st.retries; turns == nil { // there are too many members for two rotations
			return st.roster.take(q, nil)
		}
	}
	if !st.roster.isLarge() {
		return turns.next(q)
	}
	if !st.roster.scarce(q) {
		if m := turns.next(q); m != nil {
			return m
		}
	}
	return st.roster.search(q, nil)
}
