package discovery

import (
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A HoldReason is the reason why Consul no longer counts a held endpoint.
type HoldReason int

// The reasons for which endpoints are held.
const (
	// HoldDeregistered means that the endpoint was deregistered, or was registered again at another address. The node
	// of the endpoint is still in the catalog.
	HoldDeregistered HoldReason = iota + 1

	// HoldCritical means that the query excludes the endpoint's status, which is usually critical.
	HoldCritical

	// HoldForgotten means that the endpoint has gone from the catalog together with its node, for example because the
	// servers lost their state. The node may already be back. HoldForgotten is also used if the catalog cannot be
	// asked.
	HoldForgotten
)

// String returns one word for the reason.
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

// text returns a text about a held endpoint that Consul does not name.
func (r HoldReason) text() string {
	switch r {
	case HoldDeregistered:
		return "it was deregistered, and its node is still there"
	case HoldCritical:
		return "Consul's answer leaves it out, although it is still registered"
	}
	return "Consul no longer names it"
}

// A hold says why an endpoint is held, and until when at most.
type hold struct {
	why   HoldReason
	until time.Time
}

// freshOf returns the lost endpoints that are neither held nor hidden yet.
func (b *belief) freshOf(lost []lb.Endpoint, hidden map[string]bool) (fresh []lb.Endpoint) {
	for _, one := range lost {
		if _, held := b.held[one.ID]; !held && !hidden[one.ID] {
			fresh = append(fresh, one)
		}
	}
	return fresh
}

// joinedBy returns the places of the endpoints in an answer that joined the set after the last sharp loss.
func (b *belief) joinedBy(in instances) map[lb.Place]bool {
	before := make(map[lb.Place]bool, len(b.set))
	for _, e := range b.set {
		before[e.Place()] = true
	}
	var joined map[lb.Place]bool
	for _, e := range in.endpoints {
		if at := e.Place(); b.joined[at] || !before[at] {
			if joined == nil {
				joined = map[lb.Place]bool{}
			}
			joined[at] = true
		}
	}
	return joined
}

// puzzles returns the names of the nodes for which judge needs records. A record tells why endpoints were lost sharply,
// or whether the token may no longer see them. If there are more than maxPuzzles such nodes, puzzles returns none:
// operators do not deregister instances on so many nodes at once.
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

// maxPuzzles is how many node records are read after an answer.
const maxPuzzles = 16

// A queryKind says what an answer leaves out besides instances that are not registered.
type queryKind int

const (
	plainQuery    queryKind = iota // leaves out nothing else
	narrowQuery                    // leaves out instances that do not match the query's tags or filter
	preparedQuery                  // also leaves out critical instances; answers have no index
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

// whyLost returns why the answer in e does not contain the endpoint one, which was in the set. worthIt is false if the
// endpoint should not be held.
func (e *evidence) whyLost(was *belief, one lb.Endpoint) (why HoldReason, worthIt bool) {
	at := one.Place()
	if i, named := find(e.in.all, one.ID); named {
		if e.in.all[i].Endpoint.Place() != at {
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
	case r.services[id] == at && e.kind == preparedQuery: // a prepared query leaves out critical instances
		return HoldCritical, true
	case r.services[id] == at && e.kind == narrowQuery: // the tags or the filter leave the instance out
		return 0, false
	case e.index <= was.index && e.kind != preparedQuery || born != 0 && r.born != born:
		// A deregistration would have raised the index and kept the node. Therefore the catalog lost everything, and
		// the node is already back.
		return HoldForgotten, true
	}
	return HoldDeregistered, true
}

// splitID returns the node name and the service ID of an ID that entryID has made.
func splitID(id string) (node, service string) {
	node, service, _ = strings.Cut(id, "/")
	return strings.NewReplacer("%2F", "/", "%25", "%").Replace(node), service
}
