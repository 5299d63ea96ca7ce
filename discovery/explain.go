package discovery

import (
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An Explanation says where the endpoints of a service come from.
type Explanation struct {
	Service string
	Tiers   []TierStatus // in order of preference; none if Watch.Chain is set and no chain could be followed yet

	// Chain is the state of the query for the discovery chain that the tiers follow. Its Error also says why Lictor
	// cannot follow the chain. A nil Chain means that the tiers do not follow any.
	Chain *WatchStatus
}

// TierStatus is the state of one tier of a service.
type TierStatus struct {
	Name      string // such as "datacenter dc2"
	Active    bool   // the service uses the set of this tier
	Available int    // usable endpoints in the set, without held endpoints
	Failed    bool   // all usable endpoints fail from this host, and Failover.OnHealth is set

	// Watch and Instances are set only for a tier that is a query.
	Watch     WatchStatus
	Instances []Instance // sorted by ID
}

// An Instance is an instance that Consul names, with any health, or a held instance that Consul no longer names.
// Instances without the query's tags, or that do not pass its filter, are not part of an Explanation: see
// [Consul.Excluded].
type Instance struct {
	lb.Endpoint // the ID, and the address, weight and server name if they can be used

	Status  string     // worst status of its checks, such as "warning"; empty: Consul does not name the instance
	Out     Out        // why the instance is not in the set; empty: it is in the set
	Held    time.Time  // the instance is held until then (see Guard); zero: it is not held
	HeldFor HoldReason // why Consul no longer counts the instance; zero: it is not held
	Detail  string     // details of Out or Held in one line: usually the check and its output
	Tags    []string

	// NoServerName says in one line why the instance has no ServerName although the Query asks for one. If it is empty,
	// the instance has a ServerName, or the Query asks for none.
	NoServerName string

	born uint64 // the index at which the instance's node was registered; zero: unknown
}

// Out is the reason why an instance is not in the set.
type Out string

// The reasons why an instance is not in the set.
const (
	OutStatus      Out = "status"      // a check of the instance or its node has a status that the query excludes
	OutMaintenance Out = "maintenance" // the instance or its node is in maintenance
	OutAddress     Out = "address"     // the instance's address cannot be dialled
	OutPort        Out = "port"        // the instance has no port of the name that the query asks for
	OutID          Out = "id"          // the instance's ID, with the name of its node, is too long
	OutDuplicate   Out = "duplicate"   // another instance has the same address
	OutWeight      Out = "weight"      // the instance's weight for its status is zero

	// Only Excluded returns the following reasons.
	OutTags   Out = "tags"   // the instance lacks a tag of the query
	OutFilter Out = "filter" // the instance does not pass the query's filter
	OutMesh   Out = "mesh"   // the instance is not in the mesh, and the query asks for the mesh
)

// An Event reports what has happened to an instance or to a service. Joining and leaving the set are not Events.
type Event struct {
	Services []string // services that the event concerns; must not be changed
	Kind     EventKind
	Instance string // ID of the instance; empty: the event is about the services
	Text     string // the reason, in one line
}

// EventKind is the kind of an Event.
type EventKind string

// The kinds of events.
const (
	EventOut  EventKind = "out"  // the instance is out of the set, for a new reason or as a new instance
	EventHeld EventKind = "held" // the instance is held from now on

	// EventStale and EventRecovered say that the queries of the services have one cause to fail, and that they succeed
	// again. The events name no instance, and their services are sorted.
	EventStale     EventKind = "stale"
	EventRecovered EventKind = "recovered"

	// EventFailover says that a service uses another tier. The event names no instance.
	EventFailover EventKind = "failover"
)

// Explain returns what is known about a service. Explain returns false if the service is not watched.
func (c *Consul) Explain(service string) (Explanation, bool) {
	c.mu.Lock()
	f := c.selectors[service]
	chain := c.following[service]
	c.mu.Unlock()
	if f == nil {
		return Explanation{}, false
	}
	e := Explanation{Service: service}
	if chain != nil {
		s := chain.reporter.snapshot()
		e.Chain = &s
	}
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

// describe returns the state of all instances after an answer: in holds the instances of the answer, and b is the
// belief that follows from it.
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

// happened returns the event for an instance that has changed from old to one. A nil old means that the instance is
// new. An empty kind means that the change is worth no event.
func happened(old, one *Instance) (kind EventKind, text string) {
	switch {
	case !one.Held.IsZero():
		if old == nil || old.Held.IsZero() {
			return EventHeld, one.Detail
		}
	case one.Out != "":
		if old == nil || old.Out != one.Out || !old.Held.IsZero() {
			if one.Out == OutStatus { // the detail contains the status
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
		one := Instance{Endpoint: e, Detail: "saved by the previous process; Consul has not answered yet"}
		if h, held := s.held[e.ID]; held {
			one.Held, one.HeldFor = h.until, h.why
		}
		all = append(all, one)
	}
	return all
}
