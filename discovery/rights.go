package discovery

import "github.com/lictor-proxy/lictor/lb"

// unnamed returns the endpoints of the set that may have vanished only because the token has lost a right. These
// endpoints are not held, and the answer in e does not name them. When a token loses some rights, instances vanish
// silently. Only answers without an index say that instances were left out. For a token with few rights, all answers
// say so; therefore it counts only if it is new.
func (b *belief) unnamed(e *evidence) (unnamed []lb.Endpoint) {
	if !b.full || b.filtered {
		return nil
	}
	for _, one := range e.lostOf(b) {
		_, held := b.held[one.ID]
		if _, named := find(e.in.all, one.ID); !held && !named {
			unnamed = append(unnamed, one)
		}
	}
	return unnamed
}

// hiddenFrom returns the endpoints of the set, by ID, that the answer in e may hide because the token has lost a right.
// If the token may see all of a node, no endpoint of the node is hidden.
func (b *belief) hiddenFrom(e *evidence) map[string]bool {
	if e.asked.index != 0 || !e.filtered {
		return nil
	}
	var hidden map[string]bool
	for _, one := range b.unnamed(e) {
		node, _ := splitID(one.ID)
		if _, seen := e.records[node]; seen {
			continue
		}
		if hidden == nil {
			hidden = map[string]bool{}
		}
		hidden[one.ID] = true
	}
	return hidden
}
