package lb

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// sourceHash picks by weighted rendezvous hashing of the client's IP address. The hash of the client's address gives
// each member a score, and the member with the highest score serves the client ("Weighted distributed hash tables",
// Schindelhauer and Schomaker, 2005). When a member leaves, only the clients of that member move, evenly to the other
// members. When a member joins, only the clients that it gets move.
//
// With more than manyMembers members, a client is scored with only some hundreds of members, see cells. In such a set,
// a change of one of n equal members moves about 2.5/n of all clients. An ejection still moves only the clients of the
// ejected member.
//
// The policy uses no random numbers, so all Lictors pick the same member for a client address.
type sourceHash struct {
	*roster
	nodes []hashNode // one for each member, in the same order
	equal bool       // all nodes have the same weight
	cells *cells     // nil: score each client with all members
}

// A hashNode holds the values on which the score of a member depends.
type hashNode struct {
	seed   uint64 // hash of the member's ID
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
		for _, i := range s.cells.indexesFor(best.client) {
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

// A winner is the member with the highest score so far in a pick.
type winner struct {
	client uint64 // hash of the client's address
	index  int    // index of the member; negative: there is no winner yet
	hash   uint64
	score  float64
}

// score makes the member at index i the winner if the member may serve and has a higher score.
func (s *sourceHash) score(best *winner, i int, q *query) {
	q.examined++
	node := &s.nodes[i]
	hash := mix(best.client ^ node.seed)
	if s.equal && q.isPlain() {
		if (best.index < 0 || hash > best.hash) && q.serves(s.members[i], nil) {
			best.index, best.hash = i, hash
		}
		return
	}
	// For a random number between 0 and 1, both excluded, -1/ln(number) has the distribution that makes shares
	// proportional to weights. -1/ln(number) is less than 1/(1-number), which is cheaper to compute.
	number := (float64(hash>>11) + 0.5) / (1 << 53)
	if best.index >= 0 && node.weight <= best.score*(1-number) {
		return
	}
	m := s.members[i]
	score := -node.weight * q.share(m) / math.Log(number)
	if (best.index < 0 || score > best.score) && q.serves(m, nil) {
		best.index, best.score = i, score
	}
}

// hashID returns the mixed FNV-1a hash of an ID. Mixing gives IDs that differ only in the last letter very different
// hashes.
func hashID(id string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return mix(h)
}

// hashAddr returns a hash of an address. An IPv4 address and its IPv4-mapped IPv6 address have the same hash.
func hashAddr(a netip.Addr) uint64 {
	b := a.As16()
	return mix(mix(binary.BigEndian.Uint64(b[:8])) ^ binary.BigEndian.Uint64(b[8:]))
}

// mix is the finalizer of SplitMix64: each bit of x changes half of the bits of the result on average.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
