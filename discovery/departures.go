package discovery

import (
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/lb"
)

// Leaves says how much a service wants to know about endpoints that leave. The sink always learns which endpoints are
// critical or have an excluded status, because answers of Consul name them. An endpoint that vanishes from the answers
// was deregistered, or no longer matches the query, or an agent gives a wrong answer.
type Leaves int

const (
	// LeavesIgnored asks for nothing. The sink does not learn of vanished endpoints.
	LeavesIgnored Leaves = iota

	// LeavesConfirmed asks Consul's leader to confirm that endpoints have vanished.
	LeavesConfirmed

	// LeavesExplained also asks whether vanished endpoints are still registered. If Consul does not say so, the sink
	// gets both possible reasons.
	LeavesExplained
)

// departures returns the endpoints that left the set, now or earlier, and are not in the new set. told contains
// endpoints that the answer names, with the reason why they are out, sorted by ID and address. lost contains endpoints
// that the answer does not name, the latest first.
func (b belief) departures(in instances, set []lb.Endpoint) (told []lb.Departure, lost []lb.Endpoint) {
	if len(b.out)+len(b.vanished) == 0 && slices.Equal(b.set, set) {
		return nil, nil
	}
	here := make(map[lb.Place]bool, len(set))
	for _, e := range set {
		here[e.Place()] = true
	}
	former := slices.Concat(b.set, b.vanished)
	for _, d := range b.out {
		former = append(former, d.Endpoint)
	}
	type key struct {
		id string
		at lb.Place
	}
	seen := map[key]bool{}
	for _, e := range former {
		at := e.Place()
		// An endpoint of the new set at the same address is the same process, under any ID.
		if here[at] || seen[key{e.ID, at}] {
			continue
		}
		seen[key{e.ID, at}] = true
		if i, named := find(in.all, e.ID); named {
			told = append(told, lb.Departure{Endpoint: e, Why: in.all[i].whyOut(at)})
		} else {
			lost = append(lost, e)
		}
	}
	slices.SortFunc(told, func(a, b lb.Departure) int { return strings.Compare(a.ID+a.Address(), b.ID+b.Address()) })
	return told, lost
}

// find returns the index of the instance with this ID in all, or the index at which to insert it. all must be sorted by
// ID.
func find(all []Instance, id string) (int, bool) {
	return slices.BinarySearchFunc(all, id, func(a Instance, id string) int { return strings.Compare(a.ID, id) })
}

// whyOut returns why an instance that Consul names is not in the set at the place at.
func (one *Instance) whyOut(at lb.Place) lb.Reasons {
	switch {
	case one.Out == OutAddress || one.Endpoint.Place() != at:
		return lb.Deregistered // the instance is no longer registered at that address
	case one.Out == OutMaintenance, one.Out == OutStatus && one.Status == api.HealthCritical:
		return lb.Critical
	}
	return lb.Unmatched
}

// followed returns the departures to follow in later answers. followed leaves out endpoints with an instance that has
// moved to another address. Later answers say nothing about the old address, and an instance may move any number of
// times.
func followed(told []lb.Departure) []lb.Departure {
	return slices.DeleteFunc(slices.Clone(told), func(d lb.Departure) bool { return d.Why == lb.Deregistered })
}

// A registry contains the registered instances, by ID and address.
type registry map[[2]string]bool

// needsRegistry reports whether only the registry can tell why an endpoint vanished from the answers to q.
func (q *Query) needsRegistry() bool { return q.whyVanished() == lb.Deregistered|lb.Unmatched }

// whyVanished returns the possible reasons for which an endpoint vanishes from the answers to q.
func (q *Query) whyVanished() lb.Reasons {
	switch q.kind() {
	case preparedQuery:
		return lb.Deregistered | lb.Critical | lb.Unmatched
	case narrowQuery:
		return lb.Deregistered | lb.Unmatched
	}
	return lb.Deregistered
}

// explain returns why the endpoints in gone have vanished from the answers to q. If known is nil, the registry is
// unknown.
func (q *Query) explain(gone []lb.Endpoint, known registry) []lb.Departure {
	left := make([]lb.Departure, 0, len(gone))
	for _, e := range gone {
		why := q.whyVanished()
		switch {
		case known == nil:
		case known[[2]string{e.ID, e.Address()}]:
			why = lb.Unmatched
		default:
			why = lb.Deregistered
		}
		left = append(left, lb.Departure{Endpoint: e, Why: why})
	}
	return left
}
