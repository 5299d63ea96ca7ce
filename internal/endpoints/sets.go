package endpoints

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// A Sink takes sets of endpoints: the balancer.
type Sink interface {
	OnUpdate(updates []lb.Endpoints)
}

// A Judge says which endpoints must not get clients. *cycles.Detector is one.
type Judge interface {
	// Judge takes the sets of services, in place of those that it had. It returns the verdicts, by service and endpoint
	// ID, of each service whose verdicts are others than they were, whether it is in updates or not. Endpoints without
	// a verdict may get clients.
	Judge(updates []lb.Endpoints) map[string]map[string]cycles.Verdict
}

// Sets stand between the sources and the balancer: they remember what each service's endpoints are, note as events what
// changes, and leave out what an operator drains and what a Judge forbids. A Sets is a discovery.Sink. Safe for
// concurrent use.
type Sets struct {
	next   Sink
	events *Events
	judge  Judge

	mu   sync.Mutex // also held while next is told, so that it hears of updates and drains in their order
	sets map[string]*set
}

// A set is what is known of one service.
type set struct {
	endpoints []member             // sorted by ID
	drained   map[string]time.Time // since when, by ID; such may have left meanwhile, and stay drained if they return
	forbidden map[string]ban       // by ID
	changed   time.Time
}

// A ban is why an endpoint must not get clients, and since when.
type ban struct {
	cycles.Verdict
	since time.Time
}

type member struct {
	lb.Endpoint
	since time.Time
}

// NewSets returns Sets that know nothing yet, ask judge, and tell next and events. A nil judge forbids nothing.
func NewSets(next Sink, events *Events, judge Judge) *Sets {
	return &Sets{next: next, events: events, judge: judge, sets: map[string]*set{}}
}

// OnUpdate implements discovery.Sink.
func (s *Sets) OnUpdate(updates []lb.Endpoints) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, u := range updates {
		if u.Removed {
			delete(s.sets, u.Service)
			continue
		}
		one := s.sets[u.Service]
		if one == nil {
			one = &set{}
			s.sets[u.Service] = one
		}
		one.replace(u, now, s.events)
	}
	rejudged := s.judgeLocked(updates, now)
	var out []lb.Endpoints
	for _, u := range updates {
		if !u.Removed {
			u.Endpoints = s.sets[u.Service].serving(u.Endpoints)
		}
		delete(rejudged, u.Service)
		out = append(out, u)
	}
	s.next.OnUpdate(append(out, s.servedLocked(rejudged)...))
}

// Reconsider has all sets judged anew: the Judge knows something that it did not.
func (s *Sets) Reconsider() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if updates := s.servedLocked(s.judgeLocked(s.allLocked(), time.Now())); len(updates) > 0 {
		s.next.OnUpdate(updates)
	}
}

// judgeLocked has sets judged, and returns the services whose verdicts have changed.
func (s *Sets) judgeLocked(updates []lb.Endpoints, now time.Time) map[string]bool {
	if s.judge == nil {
		return nil
	}
	rejudged := map[string]bool{}
	for service, verdicts := range s.judge.Judge(updates) {
		if one := s.sets[service]; one != nil {
			one.forbid(service, verdicts, now, s.events)
			rejudged[service] = true
		}
	}
	return rejudged
}

// servedLocked returns the sets of services as they are served, sorted by service.
func (s *Sets) servedLocked(services map[string]bool) (sets []lb.Endpoints) {
	for _, name := range slices.Sorted(maps.Keys(services)) {
		one := s.sets[name]
		sets = append(sets, lb.Endpoints{Service: name, Endpoints: one.serving(one.all())})
	}
	return sets
}

// allLocked returns all sets, whole, sorted by service.
func (s *Sets) allLocked() (sets []lb.Endpoints) {
	for _, name := range slices.Sorted(maps.Keys(s.sets)) {
		sets = append(sets, lb.Endpoints{Service: name, Endpoints: s.sets[name].all()})
	}
	return sets
}

// Export returns all sets, whole, and the IDs of the endpoints that are drained, both by service: what another process needs to go on.
func (s *Sets) Export() (sets []lb.Endpoints, drained map[string][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	drained = map[string][]string{}
	for name, one := range s.sets {
		if len(one.drained) > 0 {
			drained[name] = slices.Sorted(maps.Keys(one.drained))
		}
	}
	return s.allLocked(), drained
}

// Import begins with what another process has exported.
func (s *Sets) Import(sets []lb.Endpoints, drained map[string][]string) {
	s.OnUpdate(sets)
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, ids := range drained {
		one := s.sets[name]
		if one == nil {
			continue
		}
		one.drained = map[string]time.Time{}
		for _, id := range ids {
			one.drained[id] = time.Now()
		}
		s.republishLocked(name)
	}
}

// find is where the endpoint with an ID is, and whether it is there.
func (one *set) find(id string) (at int, found bool) {
	return slices.BinarySearchFunc(one.endpoints, id, func(m member, id string) int { return strings.Compare(m.ID, id) })
}

// replace notes the new endpoints of u, and tells events what is different.
func (one *set) replace(u lb.Endpoints, now time.Time, events *Events) {
	before := *one
	one.endpoints = make([]member, 0, len(u.Endpoints))
	for _, e := range u.Endpoints {
		one.endpoints = append(one.endpoints, member{e, now})
	}
	slices.SortStableFunc(one.endpoints, func(a, b member) int { return strings.Compare(a.ID, b.ID) })
	different := before.endpoints == nil
	for i := range one.endpoints {
		m := &one.endpoints[i]
		at, known := before.find(m.ID)
		switch {
		case !known:
			different = true
			events.Add(Event{Time: now, Kind: KindJoined, Service: u.Service, Endpoint: m.ID, Text: fmt.Sprintf("%s at %s", m.ID, m.Address())})
		case before.endpoints[at].Endpoint != m.Endpoint:
			different = true
			events.Add(Event{Time: now, Kind: KindChanged, Service: u.Service, Endpoint: m.ID, Text: m.ID + change(before.endpoints[at].Endpoint, m.Endpoint)})
		default:
			m.since = before.endpoints[at].since
		}
	}
	for _, m := range before.endpoints {
		if _, stays := one.find(m.ID); !stays {
			different = true
			events.Add(Event{Time: now, Kind: KindLeft, Service: u.Service, Endpoint: m.ID, Text: fmt.Sprintf("%s at %s", m.ID, m.Address())})
		}
	}
	if different { // a source may send the same again
		one.changed = now
	}
}

// change is what differs between two states of one endpoint.
func change(before, now lb.Endpoint) string {
	var text strings.Builder
	if b, n := before.Address(), now.Address(); b != n {
		fmt.Fprintf(&text, " moved from %s to %s", b, n)
	}
	if before.Weight != now.Weight {
		fmt.Fprintf(&text, " weight %d, was %d", now.Weight, before.Weight)
	}
	return text.String()
}

// serving returns those of the endpoints that get clients.
func (one *set) serving(endpoints []lb.Endpoint) []lb.Endpoint {
	if len(one.drained)+len(one.forbidden) == 0 {
		return endpoints
	}
	return slices.DeleteFunc(slices.Clone(endpoints), func(e lb.Endpoint) bool {
		_, drained := one.drained[e.ID]
		_, forbidden := one.forbidden[e.ID]
		return drained || forbidden
	})
}

// forbid takes the verdicts on the set, by ID, and tells events what is different.
func (one *set) forbid(service string, verdicts map[string]cycles.Verdict, now time.Time, events *Events) {
	before := one.forbidden
	one.forbidden = map[string]ban{}
	for _, id := range slices.Sorted(maps.Keys(verdicts)) {
		b, is := before[id]
		if !is || b.Verdict != verdicts[id] {
			b = ban{verdicts[id], now}
			events.Add(Event{Time: now, Kind: KindOut, Service: service, Endpoint: id, Text: id + ": " + b.Text})
		}
		one.forbidden[id] = b
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if _, stays := verdicts[id]; stays {
			continue
		}
		if _, there := one.find(id); there {
			text := id + " gets clients again"
			events.Add(Event{Time: now, Kind: KindReturned, Service: service, Endpoint: id, Text: text})
		}
	}
}

// Drain leaves an endpoint out for new clients until Undrain. Its connections go on. The error says that there is no such endpoint.
func (s *Sets) Drain(service, endpoint string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.sets[service]
	if one == nil {
		return fmt.Errorf("service %q is not known", service)
	}
	if _, known := one.find(endpoint); !known {
		return fmt.Errorf("service %q has no endpoint %q", service, endpoint)
	}
	if _, already := one.drained[endpoint]; already {
		return nil
	}
	if one.drained == nil {
		one.drained = map[string]time.Time{}
	}
	one.drained[endpoint] = time.Now()
	s.republishLocked(service)
	s.events.Add(Event{Kind: KindDrained, Service: service, Endpoint: endpoint, Text: endpoint + " gets no new clients until it is undrained"})
	return nil
}

// Undrain ends a Drain.
func (s *Sets) Undrain(service, endpoint string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.sets[service]
	if one == nil {
		return fmt.Errorf("service %q is not known", service)
	}
	if _, is := one.drained[endpoint]; !is {
		return fmt.Errorf("endpoint %q of service %q is not drained", endpoint, service)
	}
	delete(one.drained, endpoint)
	s.republishLocked(service)
	s.events.Add(Event{Kind: KindUndrained, Service: service, Endpoint: endpoint, Text: endpoint + " gets clients again"})
	return nil
}

func (s *Sets) republishLocked(service string) {
	s.next.OnUpdate(s.servedLocked(map[string]bool{service: true}))
}

// all are the endpoints, drained ones too, sorted by ID.
func (one *set) all() (endpoints []lb.Endpoint) {
	for _, m := range one.endpoints {
		endpoints = append(endpoints, m.Endpoint)
	}
	return endpoints
}

// Known reports whether the endpoints of a service are known, be it that there are none.
func (s *Sets) Known(service string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sets[service] != nil
}

// A View is what is known of the endpoints of one service.
type View struct {
	Changed   time.Time      // when they were last different from before
	Endpoints []EndpointView // sorted by ID
}

// An EndpointView is what is known of one endpoint.
type EndpointView struct {
	lb.Endpoint           // has only an ID if Joined is zero
	Joined      time.Time // since when it is in the set; zero: it has left, and is still drained
	Drained     time.Time // since when an operator drains it; zero: nobody does
	Forbidden   time.Time // since when Verdict stands; zero: the Judge allows it clients
	Verdict     cycles.Verdict
}

// View returns what is known of the endpoints of a service; false if nothing is.
func (s *Sets) View(service string) (v View, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.sets[service]
	if one == nil {
		return v, false
	}
	v.Changed = one.changed
	for _, m := range one.endpoints {
		b := one.forbidden[m.ID]
		v.Endpoints = append(v.Endpoints, EndpointView{
			Endpoint: m.Endpoint, Joined: m.since, Drained: one.drained[m.ID], Forbidden: b.since, Verdict: b.Verdict,
		})
	}
	for id, since := range one.drained {
		if _, there := one.find(id); !there {
			v.Endpoints = append(v.Endpoints, EndpointView{Endpoint: lb.Endpoint{ID: id}, Drained: since})
		}
	}
	slices.SortFunc(v.Endpoints, func(a, b EndpointView) int { return strings.Compare(a.ID, b.ID) })
	return v, true
}
