package discovery

import (
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A HoldReason says why Consul does not count an endpoint any more that is held.
type HoldReason int

// The reasons for which endpoints are held.
const (
	// HoldDeregistered is of an endpoint that was deregistered, or registered at another address. Its node is still in
	// the catalog.
	HoldDeregistered HoldReason = iota + 1

	// HoldCritical is of an endpoint whose status does not count: as a rule it is critical.
	HoldCritical

	// HoldForgotten is of an endpoint that has gone from the catalog together with its node, as after a loss of the
	// servers' state. The node may be back already. It is also the reason if the catalog cannot be asked.
	HoldForgotten
)

// String returns one word.
func (r HoldReason) String() string {
	switch r {
	case HoldDeregistered:
		return "deregistered"
	case HoldCritical:
		return "critical"
	case HoldForgotten:
		return "forgotten"
	}
	return "not held"
}

// text returns what there is to say of an endpoint that is held and that Consul does not name.
func (r HoldReason) text() string {
	switch r {
	case HoldDeregistered:
		return "it was deregistered, and its node is still there"
	case HoldCritical:
		return "Consul leaves it out, though it is still registered"
	}
	return "Consul does not name it any more"
}

// A hold says why an endpoint is held, and until when at most.
type hold struct {
	why   HoldReason
	until time.Time
}

// freshOf returns those of the lost endpoints that are neither held yet nor hidden.
func (b *belief) freshOf(lost []lb.Endpoint, hidden map[string]bool) (fresh []lb.Endpoint) {
	for _, one := range lost {
		if _, held := b.held[one.ID]; !held && !hidden[one.ID] {
			fresh = append(fresh, one)
		}
	}
	return fresh
}

// joinedBy returns the places of the endpoints in an answer that came into the set after the last sharp loss.
func (b *belief) joinedBy(in instances) map[place]bool {
	before := make(map[place]bool, len(b.set))
	for _, e := range b.set {
		before[placeOf(e)] = true
	}
	var joined map[place]bool
	for _, e := range in.endpoints {
		if at := placeOf(e); b.joined[at] || !before[at] {
			if joined == nil {
				joined = map[place]bool{}
			}
			joined[at] = true
		}
	}
	return joined
}

// puzzles returns the names of the nodes whose records judge needs to tell why endpoints were lost sharply, or whether
// the token may not see them any more. They are few as a rule. If there are more than maxPuzzles, no record is needed:
// an operator does not deregister on so many nodes at once.
func (b *belief) puzzles(g Guard, e *evidence) []string {
	lost, hidden, sharp := g.loss(b, e)
	if !(e.asked.leader && sharp) && len(hidden) == 0 {
		return nil
	}
	var nodes []string
	seen := map[string]bool{}
	for _, one := range b.freshOf(lost, nil) {
		node, _ := splitID(one.ID)
		if _, named := find(e.in.all, one.ID); !named && !seen[node] {
			seen[node] = true
			nodes = append(nodes, node)
		}
	}
	if len(nodes) > maxPuzzles {
		return nil
	}
	return nodes
}

// maxPuzzles is how many nodes are looked up after an answer.
const maxPuzzles = 16

// A queryKind says what an answer leaves out besides instances that are not registered.
type queryKind int

const (
	plainQuery    queryKind = iota // nothing
	narrowQuery                    // instances without its tags, or that do not pass its filter
	preparedQuery                  // those, and critical ones; its answers have no index
)

// kind returns the kind of q.
func (q *Query) kind() queryKind {
	switch {
	case q.Prepared != "":
		return preparedQuery
	case len(q.Tags) > 0 || q.Filter != "":
		return narrowQuery
	}
	return plainQuery
}

// whyLost returns why an endpoint of was is not in the answer in e. It returns false if that is no reason to hold it.
func (e *evidence) whyLost(was *belief, one lb.Endpoint) (why HoldReason, worthIt bool) {
	at := placeOf(one)
	if i, named := find(e.in.all, one.ID); named {
		if placeOf(e.in.all[i].Endpoint) != at {
			return HoldDeregistered, true
		}
		return HoldCritical, true
	}
	node, id := splitID(one.ID)
	r, asked := e.records[node]
	var born uint64
	if i, named := find(was.known, one.ID); named {
		born = was.known[i].born
	}
	switch {
	case !asked || !r.known:
		return HoldForgotten, true
	case r.occupied(id, at):
		return 0, false
	case r.services[id] == at && e.kind == preparedQuery: // which leaves out what is critical
		return HoldCritical, true
	case r.services[id] == at && e.kind == narrowQuery: // its tags or the filter leave it out
		return 0, false
	case e.index <= was.index && e.kind != preparedQuery || born != 0 && r.born != born:
		// To deregister it would have raised the index, and kept the node. So everything was forgotten, and the node is
		// back already.
		return HoldForgotten, true
	}
	return HoldDeregistered, true
}

// splitID returns the name of the node and the service ID that entryID has made an ID of.
func splitID(id string) (node, service string) {
	node, service, _ = strings.Cut(id, "/")
	return strings.NewReplacer("%2F", "/", "%25", "%").Replace(node), service
}
