package proxy

import (
	"cmp"
	"slices"
	"strings"
)

// An IdentityCount says how many live connections an identity has.
type IdentityCount struct {
	Identity    string // see TLSPeer.Identity
	Connections int
}

// Identities returns the identities of the clients of a service that have live connections, those with the most
// connections first, and at most most of them. all is how many identities there are. The connections of a service that
// Apply has removed count for as long as they go on.
func (p *Proxier) Identities(service string, most int) (some []IdentityCount, all int) {
	counts := map[string]int{}
	for _, s := range p.byName.find(service) {
		s.identities.count(counts)
	}
	for id, n := range counts {
		some = append(some, IdentityCount{id, n})
	}
	slices.SortFunc(some, func(a, b IdentityCount) int {
		return cmp.Or(cmp.Compare(b.Connections, a.Connections), strings.Compare(a.Identity, b.Identity))
	})
	return some[:min(len(some), most)], len(some)
}

// count adds the connections of each identity to counts.
func (x *identityIndex) count(counts map[string]int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, i := range x.all {
		counts[id] += len(i.conns)
	}
}
