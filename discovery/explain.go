package discovery

import (
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An Explanation says where the endpoints of a service come from.
type Explanation struct {
	Service string
	Tiers   []TierStatus // in order of preference
}

// TierStatus is what is known of one tier of a service.
type TierStatus struct {
	Name      string // such as "datacenter dc2"
	Active    bool   // the service uses its set
	Available int    // usable endpoints in the set, without those that are held
	Failed    bool   // all usable endpoints fail from here, which counts by Failover.OnHealth

	// Of a tier that is a query only:
	Watch     WatchStatus
	Instances []Instance // sorted by ID
}

// An Instance is an instance that Consul names, whatever its health, or one that is held although Consul does not
// name it any more. Instances without the query's tags, or that do not pass its filter, are not among them: see
// [Consul.Excluded].
type Instance struct {
	lb.Endpoint // its ID, and its address and weight if they can be used

	Status  string     // the worst of its checks: "passing", "warning", "critical"; empty: Consul does not name it
	Out     Out        // why it is not in the set; empty: it is
	Held    time.Time  // until when it is held (see Guard); zero: it is not
	HeldFor HoldReason // why Consul does not count it any more; zero: it is not held
	Detail  string     // more of Out or Held, in a line: as a rule which check it is, and what that check says
	Tags    []string

	born uint64 // the index at which its node was registered; zero: unknown
}

// Out is the reason why an instance is not in the set.
type Out string

// The reasons why an instance is not in the set.
const (
	OutStatus      Out = "status"      // a check of it or of its node is worse than the query admits
	OutMaintenance Out = "maintenance" // it or its node is in maintenance
	OutAddress     Out = "address"     // its address cannot be dialled
	OutID          Out = "id"          // its ID, with the name of its node, is too long
	OutDuplicate   Out = "duplicate"   // another instance has the same address
	OutWeight      Out = "weight"      // its weight in its status is zero

	// Returned by Excluded only:
	OutTags   Out = "tags"   // it lacks a tag of the query
	OutFilter Out = "filter" // it does not pass the query's filter
)

// An Event says what has happened to an instance, besides that it has joined or left the set, or to a service.
type Event struct {
	Services []string // that share the query; not to be changed
	Kind     EventKind
	Instance string // its ID; empty: the event is of the services
	Text     string // why, in a line
}

// EventKind says what has happened.
type EventKind string

// The kinds of events.
const (
	EventOut  EventKind = "out"  // it is out now, or for another reason than before, or it is new and out
	EventHeld EventKind = "held" // it is held now

	// EventFailover is of a service: it uses another tier. There is no instance.
	EventFailover EventKind = "failover"
)

// Explain returns what is known of a service. It returns false if the service is not watched.
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
		one := TierStatus{Name: t.name, Active: i == f.active, Available: t.available, Failed: t.failed()}
		if w := t.watch; w != nil {
			one.Watch, one.Instances = w.reporter.snapshot(), w.reporter.all()
		}
		e.Tiers = append(e.Tiers, one)
	}
	return e, true
}

// describe returns what is known of the instances after an answer that came to in and led to b.
func (b *belief) describe(in instances) []Instance {
	if len(b.held)+len(b.hidden) == 0 {
		return in.all
	}
	all := slices.Clone(in.all)
	for _, e := range b.set {
		h, held := b.held[e.ID]
		if b.hidden[e.ID] {
			i, _ := find(all, e.ID)
			all = slices.Insert(all, i, Instance{Endpoint: e, Detail: "the token may have lost the right to see it"})
		}
		if !held {
			continue
		}
		one := Instance{Endpoint: e, Held: h.until, HeldFor: h.why, Detail: h.why.text()}
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

// happened returns what has happened to an instance between old and one, with a text. A nil old means that the
// instance is new. An empty kind means that nothing has happened that is worth an event.
func happened(old, one *Instance) (kind EventKind, text string) {
	switch {
	case !one.Held.IsZero():
		if old == nil || old.Held.IsZero() {
			return EventHeld, one.Detail
		}
	case one.Out != "":
		if old == nil || old.Out != one.Out || !old.Held.IsZero() {
			if one.Out == OutStatus { // the detail says so too
				return EventOut, one.Detail
			}
			return EventOut, string(one.Out) + ": " + one.Detail
		}
	}
	return "", ""
}

// savedInstances returns the instances of a set that an earlier process has saved.
func savedInstances(s savedSet) []Instance {
	var all []Instance
	for _, e := range s.endpoints {
		one := Instance{Endpoint: e, Detail: "saved by an earlier process, Consul has not answered yet"}
		if h, held := s.held[e.ID]; held {
			one.Held, one.HeldFor = h.until, h.why
		}
		all = append(all, one)
	}
	return all
}
