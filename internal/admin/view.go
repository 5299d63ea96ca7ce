package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/proxy"
)

// A Proxier is what counters, listeners and connections are read from. *proxy.Proxier is one.
type Proxier interface {
	Snapshot() []proxy.Stats
	EachActivity(f func(service string, a proxy.Activity))
	Listeners() []proxy.Listener
	Connections(ctx context.Context, q proxy.ConnectionQuery) (page []proxy.Connection, next string, err error)
	Denied() []proxy.Denied
}

// Watches are what the state of sources is read from. *discovery.Consul is one.
type Watches interface {
	Snapshot() []discovery.WatchStatus
	EachFailing(f func(service, err string))
	Lag() discovery.Lag
}

// A Configured service is one that the configuration in force has.
type Configured struct {
	Name, Protocol string
	Source         string // where its endpoints come from, for people
}

// A State is where everything that is shown is read from.
type State struct {
	Proxier    Proxier
	Sets       *endpoints.Sets
	Watches    func() Watches      // of now; nil, or a nil Watches: none
	Configured func() []Configured // nobody changes what it returns

	// Instances are what the source of a service knows of its instances, of those too that are not in the set. Nil:
	// no more than Sets do.
	Instances func(service string) []Endpoint

	// Sources are the sources of a service that has several, in order of preference. Nil: none has.
	Sources func(service string) []Source

	// Excluded are the instances that a service's query is not for, by their tags or a filter, asked for now. Nil:
	// there are none.
	Excluded func(ctx context.Context, service string) ([]Endpoint, error)

	// Balanced is how the balancer sees the endpoints that it has, by service. Nil: no different.
	Balanced func() map[string]Balanced

	// Names is what metrics say of lookups of host names. Nil: nothing.
	Names Names
}

// Balanced is how the balancer sees one service.
type Balanced struct {
	Waiting   int64 // clients in the queue
	Ejections int64 // how often one of its endpoints was ejected
	Panicking bool  // so many endpoints fail that failures are ignored

	EmptyUntil time.Time // until when clients wait for the first endpoint; zero: they do not

	// Endpoints have an ID and counters; where the balancer treats one in a way of its own, also a state and a
	// reason, else an empty state.
	Endpoints []Endpoint
}

// watches are the states of all watches.
func (s *State) watches() []discovery.WatchStatus {
	if w := s.source(); w != nil {
		return w.Snapshot()
	}
	return nil
}

// eachFailing calls f for each service with a watch that fails.
func (s *State) eachFailing(f func(service, err string)) {
	if w := s.source(); w != nil {
		w.EachFailing(f)
	}
}

// source is nil without Consul.
func (s *State) source() Watches {
	if s.Watches == nil {
		return nil
	}
	return s.Watches()
}

// lag is how long changes took to be applied; nil without Consul.
func (s *State) lag() *discovery.Lag {
	w := s.source()
	if w == nil {
		return nil
	}
	lag := w.Lag()
	return &lag
}

// unready counts the services, and those of them that have no set yet. It is for probes, which may come often.
func (s *State) unready() (missing, all int) {
	configured := s.Configured()
	for i := range configured {
		if !s.Sets.Known(configured[i].Name) {
			missing++
		}
	}
	return missing, len(configured)
}

// services puts together what is known of all services, in the order of the configuration.
func (s *State) services() []Service { return s.show(s.Configured()) }

// service puts together what is known of one service. It reports whether there is such a service.
func (s *State) service(name string) (one Service, is bool) {
	configured := s.Configured()
	i := slices.IndexFunc(configured, func(c Configured) bool { return c.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return s.show(configured[i : i+1])[0], true
}

// show puts together what is known of the configured services.
func (s *State) show(configured []Configured) []Service {
	all := make([]Service, len(configured))
	at := make(map[string]*Service, len(configured))
	for i, c := range configured {
		all[i] = Service{
			Name: c.Name, Protocol: c.Protocol, Source: c.Source,
			Listeners: []string{}, Set: SetNone, Endpoints: []Endpoint{},
		}
		at[c.Name] = &all[i]
	}
	for _, l := range s.Proxier.Listeners() {
		if one := at[l.Service]; one != nil {
			one.Listeners = append(one.Listeners, l.Addr.String())
		}
	}
	for _, c := range s.Proxier.Snapshot() {
		if one := at[c.Service]; one != nil {
			one.Counters, one.Descriptors = countersOf(c), Descriptors(c.Descriptors)
		}
	}
	for i := range all {
		one := &all[i]
		if v, known := s.Sets.View(one.Name); known {
			one.Set, one.LastChange = SetFresh, &v.Changed
			one.Endpoints = endpointsOf(v.Endpoints)
		}
		if s.Instances != nil {
			one.instances(s.Instances(one.Name))
		}
		if s.Sources != nil {
			one.Sources = s.Sources(one.Name)
		}
	}
	if s.Balanced != nil {
		for name, b := range s.Balanced() {
			if one := at[name]; one != nil {
				one.balanced(&b)
			}
		}
	}
	for _, w := range s.watches() {
		for _, name := range w.Services {
			if one := at[name]; one != nil {
				one.watched(w)
			}
		}
	}
	return all
}

// endpointsOf returns the endpoints of a set, each in the state that it has without what else is known of it.
func endpointsOf(set []endpoints.EndpointView) []Endpoint {
	out := make([]Endpoint, 0, len(set))
	for i := range set {
		out = append(out, endpointOf(&set[i]))
	}
	return out
}

// endpointOf returns one endpoint of a set. That it leads back weighs more than that it is drained.
func endpointOf(v *endpoints.EndpointView) Endpoint {
	e := Endpoint{ID: v.ID}
	if !v.Joined.IsZero() {
		e.Address, e.Weight = v.Address(), max(v.Weight, 1)
	}
	switch {
	case !v.Forbidden.IsZero():
		e.State, e.Reason, e.Since, e.Detail = StateOut, v.Verdict.Reason, &v.Forbidden, v.Verdict.Text
	case v.Drained.IsZero():
		e.State, e.Reason, e.Since = StateIn, ReasonHealthy, &v.Joined
	case v.Joined.IsZero():
		e.State, e.Reason, e.Since = StateOut, ReasonDrained, &v.Drained
		e.Detail = "taken out by an operator, and gone from the set since"
	default:
		e.State, e.Reason, e.Since = StateOut, ReasonDrained, &v.Drained
		e.Detail = "taken out by an operator, here only"
	}
	return e
}

// instances adds what a source knows: more about endpoints that are in the set, and instances that are not.
func (s *Service) instances(known []Endpoint) {
	at := s.byID()
	var more []Endpoint // not appended at once, for at points into what there is
	for _, k := range known {
		e := at[k.ID]
		if e == nil {
			more = append(more, k)
			continue
		}
		e.Tags = k.Tags
		if e.State == StateIn && k.State == StateIn { // else a change is on its way, or an operator has had his say
			e.because(&k)
		}
	}
	s.Endpoints = append(s.Endpoints, more...)
	slices.SortFunc(s.Endpoints, func(a, b Endpoint) int { return strings.Compare(a.ID, b.ID) })
}

// balanced adds what the balancer knows.
func (s *Service) balanced(b *Balanced) {
	s.Waiting, s.Panicking, s.EmptyUntil = b.Waiting, b.Panicking, known(b.EmptyUntil)
	s.Counters.Ejections = b.Ejections
	at := s.byID()
	for _, k := range b.Endpoints {
		e := at[k.ID]
		if e == nil {
			continue
		}
		e.Counters, e.Name = k.Counters, k.Name
		if e.State == StateIn && k.State != "" {
			e.because(&k)
		}
	}
}

// because takes the state of k and the reason for it. Since when e was healthy says nothing of another reason.
func (e *Endpoint) because(k *Endpoint) {
	if k.Reason != e.Reason {
		e.Since = k.Since
	}
	e.State, e.Reason, e.Detail, e.Until = k.State, k.Reason, k.Detail, k.Until
}

func (s *Service) byID() map[string]*Endpoint {
	at := make(map[string]*Endpoint, len(s.Endpoints))
	for i := range s.Endpoints {
		at[s.Endpoints[i].ID] = &s.Endpoints[i]
	}
	return at
}

// watched adds what a watch knows.
func (s *Service) watched(w discovery.WatchStatus) {
	s.LastSuccess = known(w.LastSuccess)
	if !w.Saved.IsZero() && s.Set == SetFresh {
		s.Set = SetSaved
	}
	if w.Error != "" {
		s.Problem, s.StaleSince = w.Error, known(w.ErrorSince)
	}
	if w.Hidden && s.Problem == "" {
		s.Problem = discovery.ErrNoToken.Error()
	}
	if w.Held > 0 && s.Problem == "" {
		s.Problem = fmt.Sprintf("%d endpoints held that Consul does not count any more; lictor explain says why",
			w.Held)
	}
	if w.Bad > 0 && s.Problem == "" {
		s.Problem = fmt.Sprintf("%d instances left out because of their address or ID; lictor explain says why", w.Bad)
	}
}

// known is nil for no time.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func countersOf(c proxy.Stats) Counters {
	return Counters{
		RefusedBy:   refusedBy(&c),
		Connections: c.Connections, ConnectionsActive: c.ConnectionsActive, DialsFailed: c.DialsFailed,
		Retries: c.Retries, Refused: c.Refused,
		DescriptorWaits: c.DescriptorWaits,
		EndedLeft:       c.EndedLeft, EndedAged: c.EndedAged,
		BytesUp: c.BytesUp, BytesDown: c.BytesDown,
		Sessions: c.Sessions, SessionsActive: c.SessionsActive, SessionsEvicted: c.SessionsEvicted,
		DatagramsUp: c.DatagramsUp, DatagramsDown: c.DatagramsDown, DatagramsDropped: c.DatagramsDropped,
		DatagramsOverrun: c.DatagramsOverrun,
		Dials:            c.Dials.Count(), DialSeconds: c.Dials.Sum.Seconds(),
	}
}

// refusedBy is how many clients were refused, by why.
func refusedBy(c *proxy.Stats) map[string]int64 {
	var by map[string]int64
	for reason, n := range c.RefusedBy {
		if n > 0 {
			if by == nil {
				by = map[string]int64{}
			}
			by[proxy.Refusal(reason).String()] = n
		}
	}
	return by
}

// summary is the status that services come to.
func summary(services []Service) Status {
	t := Status{Services: len(services), Ready: true}
	for i := range services {
		s := &services[i]
		if s.Set == SetNone {
			t.Ready = false
			t.NotReady = append(t.NotReady, s.Name)
		}
		if s.StaleSince != nil {
			t.Stale++
		}
		in := s.In()
		t.EndpointsIn += in
		t.EndpointsOut += len(s.Endpoints) - in
		t.ConnectionsActive += s.Counters.ConnectionsActive
		t.SessionsActive += s.Counters.SessionsActive
	}
	return t
}
