package discovery

import "github.com/lictor-proxy/lictor/lb"

// unnamed returns the endpoints of the set that are not held and that the answer in e does not name, if that could be
// because the token has lost a right. A token that loses a part of its rights makes instances vanish in silence. Only
// answers without an index say that something was left out. Tokens with few rights always hear that, so it counts only
// if it is new.
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

// hiddenFrom returns the endpoints of the set that the answer in e may hide because the token has lost a right, by ID.
// If the token may see everything of a node, nothing of it is hidden.
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
