package daemon

import (
	"context"
	"reflect"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/lb"
)

// sources are the sources of a configuration that is about to come into force.
type sources struct {
	d              *Daemon
	static, consul *endpoints.Input  // nil if there is none
	client         *discovery.Consul // the client behind the consul input
	standby        *standbyReports   // the standby reports of client, if client is new
	sameConsul     bool              // the consul input stays the one in force
	exposed        []exposed         // instances whose sets the static input has too

	// If the Consul client in force must watch other services: old is its former configuration, and doubt has the
	// services with a changed watch. If the client is new or unchanged, both are nil.
	old   *config.Config
	doubt map[string]bool
}

// prepareSources starts the sources that next needs and old does not have.
func (d *Daemon) prepareSources(ctx context.Context, old, next *config.Config, all []exposed) (*sources, error) {
	s := &sources{d: d, client: d.consul.Load(), consul: d.consulInput, exposed: all}
	watches := watchesOf(next)
	s.sameConsul = old.Consul == next.Consul && reflect.DeepEqual(watchesOf(old), watches)
	switch {
	case s.sameConsul:
	case old.Consul == next.Consul && s.client != nil && len(watches) > 0:
		if err := d.refusals(ctx, next, s.client); err != nil {
			return nil, err
		}
		d.mux.Extend(d.consulInput, consulNames(next))
		if err := s.client.Apply(watches); err != nil {
			d.mux.Abort(d.consulInput, nil)
			return nil, err
		}
		s.sameConsul, s.old, s.doubt = true, old, changedWatches(watchesOf(old), watches)
	default:
		s.standby = d.standbys.newReports()
		client, err := d.newConsul(next, nil, s.standby)
		if err != nil {
			return nil, err
		}
		if client != nil {
			if err := d.refusals(ctx, next, client); err != nil {
				return nil, err
			}
		}
		s.client, s.consul = client, nil
		if client != nil {
			s.consul = d.mux.Start(client, consulNames(next), d.log)
		}
	}
	s.static = d.startStatic(next, all)
	return s, nil
}

// await waits for the first sets of new services, for at most firstAnswer.
func (s *sources) await(ctx context.Context, log hclog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	var without []string
	for _, f := range []*endpoints.Input{s.static, s.consul} {
		if f == nil {
			continue
		}
		select {
		case <-f.FirstSets():
		case <-f.Ended():
		case <-ctx.Done():
			without = append(without, f.Awaited()...)
		}
	}
	if len(without) > 0 {
		log.Warn("new services have no endpoints yet", "number", len(without), "services", endpoints.SomeOf(without))
	}
}

// abort ends the sources that prepareSources started.
func (s *sources) abort() {
	if s.old != nil {
		s.d.mux.Abort(s.consul, s.doubt)
		if err := s.client.Apply(watchesOf(s.old)); err != nil {
			s.d.log.Error("the former watches in consul could not be restored, reload again", "error", err)
		}
	}
	if s.consul != nil && !s.sameConsul {
		s.d.mux.Abort(s.consul, nil)
	}
	if s.static != nil {
		s.d.mux.Abort(s.static, nil)
	}
}

// changedWatches returns the services of old that next watches differently or not at all.
func changedWatches(old, next []discovery.Watch) map[string]bool {
	byName := make(map[string]discovery.Watch, len(next))
	for _, w := range next {
		byName[w.Service] = w
	}
	names := map[string]bool{}
	for _, w := range old {
		if !reflect.DeepEqual(w, byName[w.Service]) {
			names[w.Service] = true
		}
	}
	return names
}

// commit puts the new sources in force. The former sources continue until their successors have as many sets. commit
// returns false if the daemon has ended meanwhile.
func (s *sources) commit(next *config.Config) bool {
	d := s.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return false
	}
	var feeds []*endpoints.Input
	retire := func(old, successor *endpoints.Input) {
		if successor != nil {
			feeds = append(feeds, successor)
		}
		if old != nil && old != successor {
			d.running.Go(old.Retirement(successor))
		}
	}
	retire(d.staticInput, s.static)
	retire(d.consulInput, s.consul)
	d.mux.Commit(append(serviceNames(next), exposedNames(s.exposed)...), feeds...)
	d.staticInput, d.consulInput = s.static, s.consul
	d.consul.Store(s.client)
	if s.client != nil {
		d.use(next.Consul, s.client.Client())
	}
	if s.standby != nil {
		s.standby.Commit(consulNames(next))
	}
	if s.client != nil && !s.sameConsul {
		d.running.Go(s.client.Recount) // the new client has missed ejections until now
	}
	return true
}

// startStatic starts the source of the services that have only static endpoints, exposed ones included, and waits for
// all of its sets. startStatic returns nil if there are no such services.
func (d *Daemon) startStatic(cfg *config.Config, all []exposed) *endpoints.Input {
	sets := append(staticSets(cfg), exposedSets(all)...)
	if len(sets) == 0 {
		return nil
	}
	f := d.mux.Start(discovery.NewStatic(sets), append(staticNames(cfg), exposedNames(all)...), d.log)
	<-f.AllSets() // immediate, because the sets are static
	return f
}

// firstSources starts the sources of the first configuration.
func (d *Daemon) firstSources(cfg *config.Config, consul *discovery.Consul, standby *standbyReports) *sources {
	first := &sources{d: d, client: consul, standby: standby, exposed: d.exposed.instances()}
	first.static = d.startStatic(cfg, first.exposed)
	if consul != nil {
		first.consul = d.mux.Start(consul, consulNames(cfg), d.log)
	}
	return first
}

// healthChanged handles an ejection or the end of one. healthChanged must not block, because it is called while an
// endpoint is in use.
func (d *Daemon) healthChanged(c lb.HealthChange) {
	d.events.Health(c)
	if c.Ejected {
		d.checker.Hurry(c.Service, c.Endpoint)
	}
	d.chooseSource(c.Service)
}

// checkChanged handles a change in the result of a service's HTTP checks.
func (d *Daemon) checkChanged(service string) {
	d.sets.ReconsiderService(service)
	d.chooseSource(service)
}

// chooseSource makes the Consul client choose a service's source again. chooseSource does not block.
func (d *Daemon) chooseSource(service string) {
	if consul := d.consul.Load(); consul != nil {
		consul.HealthChanged(service)
	}
}

// failing returns how many of endpoints are ejected or fail their HTTP check. The endpoints need not be in the
// service's set.
func (d *Daemon) failing(service string, endpoints []lb.Endpoint) int {
	fit := d.checker.Fit(service, endpoints)
	return len(endpoints) - len(fit) + d.balancer.Ejected(service, fit)
}
