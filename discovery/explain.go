package discovery

import (
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An Explanation is all that is known of where the endpoints of a service come from.
type Explanation struct {
	Service string
	Tiers   []TierStatus // in order of preference
}

// TierStatus is what is known of one of the places where endpoints come from.
type TierStatus struct {
	Name      string // such as "datacenter dc2"
	Active    bool   // its set is in use
	Available int    // endpoints in the set, without those that are held

	// Of a tier that is a query:
	Watch     WatchStatus
	Instances []Instance // sorted by ID
}

// An Instance is what is known of one instance of a service: one that Consul names, whatever its health, or one that is in the set
// although Consul does not name it any more. Instances that do not have the query's tags or do not pass its filter are not known: see
// [Consul.Excluded].
type Instance struct {
	lb.Endpoint           // its ID, and its address and weight if it has ones that can be used
	Status      string    // that its checks and its node's come to: "passing", "warning" or "critical"; empty: Consul does not name it
	Out         Out       // why it is not in the set; empty: it is
	Held        time.Time // until when it is in the set although it should be out: see Guard; zero: it is not held
	Detail      string    // what there is to say about that, in a line: which check it is and what the check says
	Tags        []string
}

// Out is why an instance is not in the set.
type Out string

// The reasons there are.
const (
	OutStatus      Out = "status"      // a check of it or its node is worse than the query admits
	OutMaintenance Out = "maintenance" // somebody has put it or its node into maintenance
	OutAddress     Out = "address"     // it has none that could be dialled
	OutID          Out = "id"          // its name and its node's are too long
	OutDuplicate   Out = "duplicate"   // another instance has the same address
	OutWeight      Out = "weight"      // it is to get no traffic in the status that it has

	// Of Excluded only:
	OutTags   Out = "tags"   // it does not have all tags that are asked for
	OutFilter Out = "filter" // it does not pass the filter
)

// An Event is something that happened to an instance, and that its being in the set or not does not say.
type Event struct {
	Services []string // whose query it is; not to be changed
	Kind     EventKind
	Instance string // ID
	Text     string // why, in a line
}

// EventKind says what happened.
type EventKind string

// The kinds there are.
const (
	EventOut  EventKind = "out"  // it is not in the set: it is out now, for another reason than before, or it is known now and does not belong there
	EventHeld EventKind = "held" // it should be out, but is held
)

// Explain returns what is known of service; false if it is not watched.
func (c *Consul) Explain(service string) (Explanation, bool) {
	c.mu.Lock()
	f := c.selectors[service]
	c.mu.Unlock()
	if f == nil {
		return Explanation{}, false
	}
	e := Explanation{Service: service}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, t := range f.tiers {
		one := TierStatus{Name: t.name, Active: i == f.active, Available: t.available}
		if w := t.watch; w != nil {
			one.Watch, one.Instances = w.reporter.snapshot(), w.reporter.all()
		}
		e.Tiers = append(e.Tiers, one)
	}
	return e, true
}

// instances returns what is known of the instances after an answer that came to in, with b as the result.
func (b *belief) instances(in instances) []Instance {
	if len(b.held) == 0 {
		return in.all
	}
	all := slices.Clone(in.all)
	for _, e := range b.set {
		until, held := b.held[e.ID]
		if !held {
			continue
		}
		one := Instance{Endpoint: e, Held: until, Detail: "Consul does not name it any more"}
		i, named := find(all, e.ID)
		if named {
			one.Status, one.Detail, one.Tags = all[i].Status, all[i].Detail, all[i].Tags
			all[i] = one
		} else {
			all = slices.Insert(all, i, one)
		}
	}
	return all
}

// happened is what makes an instance that was what old says, or unknown, what one says.
func happened(old, one *Instance) (kind EventKind, text string) {
	switch {
	case !one.Held.IsZero():
		if old == nil || old.Held.IsZero() {
			return EventHeld, one.Detail
		}
	case one.Out != "":
		if old == nil || old.Out != one.Out || !old.Held.IsZero() {
			if one.Out == OutStatus { // of which the detail says enough
				return EventOut, one.Detail
			}
			return EventOut, string(one.Out) + ": " + one.Detail
		}
	}
	return "", ""
}

// savedInstances are the instances of a set that an earlier process has saved.
func savedInstances(endpoints []lb.Endpoint) []Instance {
	var all []Instance
	for _, e := range endpoints {
		all = append(all, Instance{Endpoint: e, Detail: "saved by an earlier process, Consul has not answered yet"})
	}
	return all
}
