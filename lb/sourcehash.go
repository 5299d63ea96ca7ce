package lb

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// sourceHash picks the member that a client's IP address belongs to, by weighted rendezvous hashing: the address
// gives every member a score, and the highest one serves ("Weighted distributed hash tables", Schindelhauer and
// Schomaker, 2005). When a member leaves, only its own clients move, evenly over the others; when one comes, only
// those move that it gets.
//
// Of more than manyMembers, each client has some hundreds that it is scored with: see cells. Then some others move
// besides, up to twice as many: of n equal members, a change of one moves about 2.5/n of all clients. An ejection still
// moves nobody else.
//
// All Lictors come to the same member for the same address, for nothing here is random.
type sourceHash struct {
	*roster
	nodes []hashNode // for each member
	equal bool       // all entrants weigh the same
	cells *cells     // nil: each client is scored with all members
}

// An hashNode is what a member brings along to be scored.
type hashNode struct {
	seed   uint64 // of its ID
	weight float64
}

func newSourceHash(r *roster) *sourceHash {
	s := &sourceHash{roster: r, nodes: make([]hashNode, len(r.members)), equal: r.sums == nil && !r.isLarge()}
	for i, m := range r.members {
		s.nodes[i] = hashNode{hashID(m.ID), float64(m.Weight)}
	}
	if r.isLarge() {
		s.cells = newCells(s.nodes)
	}
	return s
}

func (s *sourceHash) pick(src netip.Addr, q *query) *Member {
	best := winner{client: hashAddr(src), index: -1}
	if s.cells == nil {
		for i := range s.members {
			s.score(&best, i, q)
		}
	} else {
		marks, _ := s.marks(q)
		for _, i := range s.cells.members(best.client) {
			if marks.has(int(i)) {
				s.score(&best, int(i), q)
			}
		}
	}
	switch {
	case best.index >= 0:
		return s.members[best.index]
	case s.cells != nil:
		return s.search(q, nil)
	}
	return nil
}

// A winner is the member with the highest score that a pick has seen so far.
type winner struct {
	client uint64
	index  int // negative: there is none
	hash   uint64
	score  float64
}

// score makes the member at place i the winner if it may serve and has a higher score.
func (s *sourceHash) score(best *winner, i int, q *query) {
	q.examined++
	e := &s.nodes[i]
	hash := mix(best.client ^ e.seed)
	if s.equal && q.slowStart == 0 {
		if (best.index < 0 || hash > best.hash) && q.serves(s.members[i], nil) {
			best.index, best.hash = i, hash
		}
		return
	}
	// -1/ln of a number between 0 and 1, both excluded, has the distribution that makes shares proportional to weights.
	// It is less than 1/(1-number), which is found sooner.
	number := (float64(hash>>11) + 0.5) / (1 << 53)
	if best.index >= 0 && e.weight <= best.score*(1-number) {
		return
	}
	m := s.members[i]
	score := -e.weight * q.share(m) / math.Log(number)
	if (best.index < 0 || score > best.score) && q.serves(m, nil) {
		best.index, best.score = i, score
	}
}

// hashID is FNV-1a, mixed: short IDs that differ in the last letter must not be alike.
func hashID(id string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return mix(h)
}

// hashAddr takes an IPv4 address and the same one in IPv6 as equal.
func hashAddr(a netip.Addr) uint64 {
	b := a.As16()
	return mix(mix(binary.BigEndian.Uint64(b[:8])) ^ binary.BigEndian.Uint64(b[8:]))
}

// mix is the finalizer of SplitMix64: every bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
