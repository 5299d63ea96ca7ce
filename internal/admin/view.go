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

// A Proxier provides counters, listeners and connections. *proxy.Proxier is one.
type Proxier interface {
	Snapshot() []proxy.Stats
	EachActivity(f func(service string, a proxy.Activity))
	Listeners() []proxy.Listener
	Connections(ctx context.Context, q proxy.ConnectionQuery) (page []proxy.Connection, next string, err error)
	Denied() []proxy.Denied
}

// Watches provides the state of the sources. *discovery.Consul implements it.
type Watches interface {
	Snapshot() []discovery.WatchStatus
	Lag() discovery.Lag
}

// A Configured is a service in the configuration in force.
type Configured struct {
	Name, Protocol string
	Source         string // where the endpoints come from, in words
	Permissive     bool   // clients without a certificate of the mesh are served too
}

// A State is where the admin API reads everything that it shows.
type State struct {
	Proxier    Proxier
	Sets       *endpoints.Sets
	Watches    func() Watches      // the current watches; nil, or a nil Watches, if there are none
	Consul     func() *Consul      // at which address of Consul Lictor is; nil, or a nil result, without Consul
	Configured func() []Configured // callers must not change the result

	// Instances returns what the source of a service knows about its instances, including those that are not in the
	// set. If Instances is nil, the API shows only what Sets know.
	Instances func(service string) []Endpoint

	// Sources returns the sources of a service that has several, in order of preference. A nil Sources means that no
	// service has several.
	Sources func(service string) []Source

	// Excluded queries Consul for the instances that a service's tags or filter exclude. A nil Excluded means that
	// there are none.
	Excluded func(ctx context.Context, service string) ([]Endpoint, error)

	// Problems queries Consul for the reasons why a service has no instances. A nil Problems means that the reasons are
	// not known.
	Problems func(ctx context.Context, service string) []string

	// Balanced returns the balancer's view of each service's endpoints. A nil Balanced means that the balancer has
	// nothing to add.
	Balanced func() map[string]Balanced

	// Certificates returns the certificates that services use for TLS, by service, each service's sorted by file. A nil
	// Certificates means that no service uses any.
	Certificates func() map[string][]Certificate

	// Mesh returns what Lictor has of Consul's service mesh. A nil Mesh means that no service uses it.
	Mesh func() Mesh

	// Paths returns on which path each service is, by name. A nil Paths, or a nil result, means that no service asks
	// for the kernel path.
	Paths func() map[string]Path

	// KernelConnections returns the connections on the kernel path, sorted by ID and service. A nil KernelConnections
	// means that there are none.
	KernelConnections func(context.Context) ([]Connection, error)

	// Access says whether a service of the mesh may use another one, and returns the names of the services that dial
	// the destination as the source. A nil Access means that nothing is known of the mesh.
	Access func(ctx context.Context, source, destination string) (e ExplainedAccess, services []string)

	// Names provides the counts of host name lookups for metrics. Names may be nil.
	Names Names

	// refused returns how many clients of a service were refused a second lately, by reason. A nil refused means that
	// no client was.
	refused func(service string) map[string]float64
}

// Balanced is the balancer's view of one service.
type Balanced struct {
	Waiting   int64 // clients that wait in the queue
	Queue     int   // clients that may wait now; zero if none may
	Full      bool  // the service has its maximum of connections
	Ejections int64 // number of ejections of the service's endpoints
	Panicking bool  // so many endpoints fail that the balancer ignores failures

	EmptyUntil time.Time // when clients stop waiting for a first endpoint; zero if none wait
	Near       *Near     // without what watches know; nil: the service prefers no endpoints

	// Endpoints have an ID and counters. If the balancer treats an endpoint specially, the endpoint also has a state
	// and a reason; otherwise its state is empty.
	Endpoints []Endpoint
}

// watches returns the states of all watches.
func (s *State) watches() []discovery.WatchStatus {
	if w := s.source(); w != nil {
		return w.Snapshot()
	}
	return nil
}

// source returns the watches, or nil without Consul.
func (s *State) source() Watches {
	if s.Watches == nil {
		return nil
	}
	return s.Watches()
}

// consul returns at which address of Consul Lictor is, or nil without Consul.
func (s *State) consul() *Consul {
	if s.Consul == nil {
		return nil
	}
	return s.Consul()
}

// lag returns the histogram of the delay between Consul's answers and their use. lag returns nil without Consul.
func (s *State) lag() *discovery.Lag {
	w := s.source()
	if w == nil {
		return nil
	}
	lag := w.Lag()
	return &lag
}

// unready counts all services, and the services without a set. unready is cheap, because probes may call it often.
func (s *State) unready() (missing, all int) {
	configured := s.Configured()
	for i := range configured {
		if !s.Sets.Known(configured[i].Name) {
			missing++
		}
	}
	return missing, len(configured)
}

// services collects what is known of all services, in the order of the configuration.
func (s *State) services() []Service { return s.show(s.Configured()) }

// service collects what is known of one service. service returns false if the service does not exist.
func (s *State) service(name string) (one Service, is bool) {
	configured := s.Configured()
	i := slices.IndexFunc(configured, func(c Configured) bool { return c.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return s.show(configured[i : i+1])[0], true
}

// newServices returns services of which only the configuration is known, and the same by name.
func newServices(configured []Configured) (all []Service, at map[string]*Service) {
	all, at = make([]Service, len(configured)), make(map[string]*Service, len(configured))
	for i, c := range configured {
		all[i] = Service{
			Name: c.Name, Protocol: c.Protocol, Source: c.Source, Permissive: c.Permissive,
			Listeners: []string{}, Set: SetNone, Endpoints: []Endpoint{},
			Path: Path{Asked: pathOff, Why: "kernel_path is off"},
		}
		at[c.Name] = &all[i]
	}
	return all, at
}

// show collects what is known of the configured services.
func (s *State) show(configured []Configured) []Service {
	all, at := newServices(configured)
	for _, l := range s.Proxier.Listeners() {
		if one := at[l.Service]; one != nil {
			one.Listeners = append(one.Listeners, l.Addr.String())
		}
	}
	for _, c := range s.Proxier.Snapshot() {
		if one := at[c.Service]; one != nil {
			one.stats, one.Counters, one.Descriptors = c, countersOf(c), Descriptors(c.Descriptors)
		}
	}
	for i := range all {
		one := &all[i]
		if v, known := s.Sets.View(one.Name); known {
			one.Set, one.LastChange = SetFresh, &v.Changed
			one.Endpoints, one.drainedSince = endpointsOf(v.Endpoints), oldestDrain(v.Endpoints)
		}
		if s.Instances != nil {
			one.instances(s.Instances(one.Name))
		}
		if s.Sources != nil {
			one.Sources = s.Sources(one.Name)
		}
	}
	if s.Certificates != nil {
		for name, some := range s.Certificates() {
			if one := at[name]; one != nil {
				one.Certificates = some
			}
		}
	}
	m := s.mesh()
	m.attach(at)
	balanced := map[string]Balanced{}
	if s.Balanced != nil {
		balanced = s.Balanced()
	}
	for name, b := range balanced {
		if one := at[name]; one != nil {
			one.balanced(&b)
		}
	}
	for name, p := range s.paths() {
		if one := at[name]; one != nil {
			one.path(p)
		}
	}
	for _, w := range s.watches() {
		for _, name := range w.Services {
			if one := at[name]; one != nil {
				one.watched(w)
			}
		}
	}
	for i := range all {
		one := &all[i]
		if s.refused != nil {
			one.refused(s.refused(one.Name))
		}
		b := balanced[one.Name]
		one.judge(&b)
	}
	return all
}

// endpointsOf converts the endpoints of a set, with the state that the set alone gives them.
func endpointsOf(set []endpoints.EndpointView) []Endpoint {
	out := make([]Endpoint, 0, len(set))
	for i := range set {
		out = append(out, endpointOf(&set[i]))
	}
	return out
}

// oldestDrain returns when the oldest drain without an end began, or zero if there is none.
func oldestDrain(set []endpoints.EndpointView) (since time.Time) {
	for i := range set {
		v := &set[i]
		if !v.Drained.IsZero() && v.Drain.Until.IsZero() && (since.IsZero() || v.Drained.Before(since)) {
			since = v.Drained
		}
	}
	return since
}

// endpointOf converts one endpoint of a set. If an endpoint is forbidden and drained, the API shows why it is
// forbidden.
func endpointOf(v *endpoints.EndpointView) Endpoint {
	e := Endpoint{ID: v.ID, DrainedBy: v.Drain.By, DrainReason: v.Drain.Reason}
	if !v.Joined.IsZero() {
		e.Address, e.Weight, e.ServerName, e.Identity = v.Address(), max(v.Weight, 1), v.ServerName, v.Identity
		e.Zone, e.Near = v.Zone, v.Near
	}
	switch {
	case !v.Forbidden.IsZero():
		e.State, e.Reason, e.Since, e.Detail = StateOut, v.Verdict.Reason, &v.Forbidden, v.Verdict.Text
	case v.Drained.IsZero():
		e.State, e.Reason, e.Since = StateIn, ReasonHealthy, &v.Joined
	default:
		e.State, e.Reason, e.Since, e.Until = StateOut, ReasonDrained, &v.Drained, known(v.Drain.Until)
		e.Detail = drainDetail(v)
	}
	return e
}

// drainDetail describes the drain of an endpoint.
func drainDetail(v *endpoints.EndpointView) string {
	by, where, why := v.Drain.By, "in this Lictor only", ""
	if by == "" {
		by = "an operator"
	}
	if v.Joined.IsZero() {
		where = "and gone from the set since"
	}
	if v.Drain.Reason != "" {
		why = ": " + v.Drain.Reason
	}
	return fmt.Sprintf("drained by %s, %s%s", by, where, why)
}

// instances adds what a source knows: details of endpoints in the set, and instances outside the set.
func (s *Service) instances(known []Endpoint) {
	at := s.byID()
	var more []Endpoint // appended at the end, because at has pointers into s.Endpoints
	for _, k := range known {
		e := at[k.ID]
		if e == nil {
			more = append(more, k)
			continue
		}
		e.Tags = k.Tags
		if e.ServerName == "" {
			e.NoServerName = k.NoServerName
		}
		if e.State == StateIn && k.State == StateIn { // otherwise the set will change soon, or an operator drained e
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
	if b.Near != nil {
		near := *b.Near // watched changes it
		s.Near = &near
	}
	at := s.byID()
	for _, k := range b.Endpoints {
		e := at[k.ID]
		if e == nil {
			continue
		}
		e.Counters, e.Name, e.Denied, e.Unanswered = k.Counters, k.Name, k.Denied, k.Unanswered
		if e.State == StateIn && k.State != "" {
			e.because(&k)
		}
	}
}

// because copies the state and the reason of k. If the reason changes, Since changes too, because the old Since belongs
// to the old reason.
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
	if !w.Chain {
		s.LastSuccess = known(w.LastSuccess)
	}
	if s.Near != nil {
		s.Near.watched(&w)
	}
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
		s.Problem = fmt.Sprintf("%d endpoints are held that Consul no longer reports; see lictor explain",
			w.Held)
	}
	if w.Bad > 0 && s.Problem == "" {
		s.Problem = fmt.Sprintf("%d instances are left out because of their address or ID; see lictor explain", w.Bad)
	}
}

// known returns a pointer to t, or nil if t is zero.
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
		EndedLeft:       c.EndedLeft, EndedAged: c.EndedAged, EndedIntention: c.EndedIntention,
		BytesUp: c.BytesUp, BytesDown: c.BytesDown,
		Sessions: c.Sessions, SessionsActive: c.SessionsActive, SessionsEvicted: c.SessionsEvicted,
		DatagramsUp: c.DatagramsUp, DatagramsDown: c.DatagramsDown, DatagramsDropped: c.DatagramsDropped,
		DatagramsOverrun: c.DatagramsOverrun,
		Dials:            c.Dials.Count(), DialSeconds: c.Dials.Sum.Seconds(),
	}
}

// refusedBy returns the number of refused clients by reason, without zeros.
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

// summary returns the status that follows from the services' states.
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
		switch s.State {
		case StateRefusing:
			t.Refusing++
		case StateDegraded:
			t.Degraded++
		}
		in := s.In()
		t.EndpointsIn += in
		t.EndpointsOut += len(s.Endpoints) - in
		t.ConnectionsActive += s.Counters.ConnectionsActive
		t.SessionsActive += s.Counters.SessionsActive
	}
	return t
}
