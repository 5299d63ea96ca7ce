package discovery

import (
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/lb"
)

// Leaves says how much a service wants to know of endpoints that leave it. Answers name those that are critical or
// have a status that does not count, so the sink is told of them in any case. An endpoint that vanishes from the
// answers was deregistered, or does not match the query any more, or an agent is wrong.
type Leaves int

const (
	// LeavesIgnored asks nothing. The sink is not told of endpoints that vanish.
	LeavesIgnored Leaves = iota

	// LeavesConfirmed asks Consul's leader to confirm that they have vanished.
	LeavesConfirmed

	// LeavesExplained asks besides whether they are still registered. If that cannot be learnt, the sink is told of
	// both reasons.
	LeavesExplained
)

// departures returns the endpoints that left the set, now or earlier, and are not in the new set. told are those
// that the answer names, with the reason why they are out, sorted by ID and address; lost are those that it does not
// name, the latest first.
func (b belief) departures(in instances, set []lb.Endpoint) (told []lb.Departure, lost []lb.Endpoint) {
	if len(b.out)+len(b.vanished) == 0 && slices.Equal(b.set, set) {
		return nil, nil
	}
	here := make(map[place]bool, len(set))
	for _, e := range set {
		here[placeOf(e)] = true
	}
	former := slices.Concat(b.set, b.vanished)
	for _, d := range b.out {
		former = append(former, d.Endpoint)
	}
	type key struct {
		id string
		at place
	}
	seen := map[key]bool{}
	for _, e := range former {
		at := placeOf(e)
		// An endpoint of the new set at the same address is the same process, whatever its ID.
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

// find returns where the instance with this ID is, or would be, in all, which is sorted by ID.
func find(all []Instance, id string) (int, bool) {
	return slices.BinarySearchFunc(all, id, func(a Instance, id string) int { return strings.Compare(a.ID, id) })
}

// whyOut returns why an instance that Consul names is not in the set at this place.
func (one *Instance) whyOut(at place) lb.Reasons {
	switch {
	case one.Out == OutAddress || placeOf(one.Endpoint) != at:
		return lb.Deregistered // it is not registered at that address any more
	case one.Out == OutMaintenance, one.Out == OutStatus && one.Status == api.HealthCritical:
		return lb.Critical
	}
	return lb.Unmatched
}

// followed returns the departures that are worth following. An endpoint whose instance is at another address now is
// not: nothing more will be known of it, and an instance may move for ever.
func followed(told []lb.Departure) []lb.Departure {
	return slices.DeleteFunc(slices.Clone(told), func(d lb.Departure) bool { return d.Why == lb.Deregistered })
}

// A registry has what is registered, by ID and address.
type registry map[[2]string]bool

// needsRegistry reports whether only a look into the registry tells why an endpoint vanished from the answers to q.
func (q *Query) needsRegistry() bool { return q.whyVanished() == lb.Deregistered|lb.Unmatched }

// whyVanished returns the reasons for which an endpoint can vanish from the answers to q.
func (q *Query) whyVanished() lb.Reasons {
	switch q.kind() {
	case preparedQuery:
		return lb.Deregistered | lb.Critical | lb.Unmatched
	case narrowQuery:
		return lb.Deregistered | lb.Unmatched
	}
	return lb.Deregistered
}

// explain returns why endpoints have vanished from the answers to q. A nil registry is unknown.
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
