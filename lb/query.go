package lb

import (
	"net/netip"
	"time"
)

// A query holds the conditions of one pick. A query lives on the stack, so policies must not keep a reference to it.
type query struct {
	tried        *Tried
	panicking    bool          // ejected members may be picked
	skipTroubled bool          // members that have failed since they were last reached may not be picked
	slowStart    time.Duration // how long a slow start takes; 0: no member is in a slow start
	now          instant       // the current time; set only for slow starts and stickiness
	maxOpen      int64         // limit on the open uses of each member; 0: no limit
	leaves       bool          // the client leaves the own zone, so the room of other zones counts, see nearby
	examined     int           // how many members the pick has examined so far; tests limit it
	sawFull      bool          // result: a member was skipped only because it is full
}

// available reports whether m may serve any client now.
func (q *query) available(m *Member) bool { return q.healthy(m) && q.hasRoom(m) }

// serves reports whether m may serve this client now. serves returns false if m is except; except may be nil.
func (q *query) serves(m, except *Member) bool {
	q.examined++
	return m != except && !q.avoids(m) && q.available(m) && (!q.leaves || m.farPart() > 0)
}

// avoids reports whether this client should skip m, because the client has tried m or because m is failing.
func (q *query) avoids(m *Member) bool {
	return q.tried.Has(m.ID) || q.skipTroubled && m.health.troubled.Load()
}

// healthy reports whether m may be picked as far as ejections go: m is not ejected, or the query ignores ejections.
func (q *query) healthy(m *Member) bool { return q.panicking || m.health.ejectedUntil.Load() == 0 }

// hasRoom reports whether m may have one more use. If m is full, hasRoom sets sawFull.
func (q *query) hasRoom(m *Member) bool {
	if q.maxOpen == 0 || m.open.Load() < q.maxOpen {
		return true
	}
	q.sawFull = true
	return false
}

// err returns the error of a pick with the result m. err returns nil if m is not nil.
func (q *query) err(m *Member) error {
	switch {
	case m != nil:
		return nil
	case q.sawFull:
		return ErrFull
	}
	return ErrMissingEndpoints
}

// minShare is the part of its weight with which an endpoint begins a slow start. minShare is above zero because an
// endpoint without clients cannot warm up.
const minShare = 0.1

// isPlain reports whether share returns 1 for all members.
func (q *query) isPlain() bool { return q.slowStart == 0 && !q.leaves }

// share returns the part of m's weight that counts now. The part is less than 1 during a slow start, or if the client
// leaves the own zone and other zones have more room. Otherwise it is 1.
func (q *query) share(m *Member) float64 {
	if q.isPlain() {
		return 1
	}
	if q.leaves {
		return m.farPart() * q.slowShare(m)
	}
	return q.slowShare(m)
}

// slowShare returns the part of m's weight that counts in a slow start.
func (q *query) slowShare(m *Member) float64 {
	if q.slowStart == 0 {
		return 1
	}
	since := m.servesSince()
	if since == 0 || q.now >= since.add(q.slowStart) {
		return 1
	}
	return max(minShare, float64(q.now.sub(since))/float64(q.slowStart))
}

// pick returns the member that the client sticks to. If that member may not serve, or there is none, pick asks the
// policy.
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
	if m != nil && !stays { // a member that is only full keeps its client for the next pick
		st.sticky.put(src, m, q.now)
	}
	return m
}

// choose returns the member that the policy picks; nil if no member may serve.
func (st *state) choose(src netip.Addr, q *query) *Member {
	if st.near != nil {
		return st.near.choose(&st.chooser, src, q)
	}
	return st.chooser.choose(src, q)
}
