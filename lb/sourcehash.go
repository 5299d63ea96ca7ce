package lb

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// sourceHash picks the member that a client's IP address belongs to, by weighted rendezvous hashing: the address gives every member a
// score, and the highest one serves ("Weighted distributed hash tables", Schindelhauer and Schomaker, 2005). When a member leaves,
// only its own clients move, evenly over the others; when one comes, only those move that it gets. A table such as Maglev's
// answers in constant time, but moves some other clients too, and takes 100 places a member and service; this looks at all
// members, which of ten takes less time than to miss a cache line of such a table.
//
// All Lictors come to the same member for the same address, for nothing here is random.
type sourceHash struct {
	members []*Member
	seeds   []uint64 // of the members' IDs
	equal   bool     // all weights are
}

func newSourceHash(r *roster) *sourceHash {
	members := r.members
	s := &sourceHash{members: members, equal: true}
	for _, m := range members {
		s.seeds = append(s.seeds, hashID(m.ID))
		s.equal = s.equal && m.Weight == members[0].Weight
	}
	return s
}

func (s *sourceHash) next(src netip.Addr, q *query) *Member {
	client := hashAddr(src)
	plain := s.equal && q.slow == 0
	var best *Member
	var score float64
	var most uint64
	for i, m := range s.members {
		h := mix(client ^ s.seeds[i])
		if plain {
			if best != nil && h <= most {
				continue
			}
		}
		if q.avoids(m) || !q.admits(m) {
			continue
		}
		if plain {
			best, most = m, h
			continue
		}
		// -1/ln of a number between 0 and 1, both excluded, has the distribution that makes shares proportional to weights.
		v := -float64(m.Weight) * q.share(m) / math.Log((float64(h>>11)+0.5)/(1<<53))
		if best == nil || v > score {
			best, score = m, v
		}
	}
	return best
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
