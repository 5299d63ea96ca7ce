package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/mesh"
	"github.com/lictor-proxy/lictor/internal/sidecar"
	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// exposures serve services of this host to Consul's service mesh. Each exposed instance is a service of the proxier:
// its listener speaks the mesh's TLS, and its only endpoint is the instance. The registrar says which instances there
// are.
type exposures struct {
	d *Daemon

	// The holder of Daemon.reloading, or the start, uses these fields.
	inForce map[string]*exposure // by the name of the service in Consul
	started bool                 // start has been called

	// The same changes these. The registrar is nil until a configuration exposes a service.
	registrar atomic.Pointer[registrar]
	live      atomic.Pointer[[]exposed]   // the instances with a listener, sorted by name
	shown     atomic.Pointer[[]*exposure] // inForce, sorted by name, for those who only read

	mu      sync.Mutex      // guards changed
	changed map[string]bool // services in Consul whose clients must be judged again
	wake    chan struct{}   // has an element while changed is not empty

	forbidden forbidden
}

func newExposures(d *Daemon) *exposures {
	e := &exposures{d: d, changed: map[string]bool{}, wake: make(chan struct{}, 1)}
	e.live.Store(&[]exposed{})
	e.forbidden.add = d.events.Add
	return e
}

// instances returns the instances that have a listener.
func (e *exposures) instances() []exposed { return *e.live.Load() }

// An exposure is an expose block in force.
type exposure struct {
	settings   config.Expose
	namespace  string
	store      *meshStore
	identity   *mesh.Identity
	intentions *mesh.Intentions
	end        chan struct{} // closed by close
}

// An exposed is an exposed instance.
type exposed struct {
	sidecar.Instance
	name   string // of the service of the proxier, as config.ExposedName returns it
	of     *exposure
	accept *proxy.AcceptTLS
}

// prepare returns the instances that have a listener with the configuration next. A removed service is still among
// them: its listener closes when the registrar has withdrawn it. The step puts all that in force, or discards it.
func (e *exposures) prepare(next *config.Config, store *meshStore) ([]exposed, step, error) {
	blocks := e.open(next, store)
	registrar, err := e.prepareRegistrar(next, blocks)
	if err != nil {
		closeExposures(blocks, e.inForce)
		return nil, step{}, err
	}
	set := e.served(e.instancesOf(registrar), blocks)
	commit := func() {
		former := e.held()
		e.inForce = blocks
		e.live.Store(&set)
		e.showBlocks()
		e.closeUnused(former)
		e.commitRegistrar(registrar)
		for name := range blocks {
			e.intentionsChanged(name) // allow_identities may be another
		}
	}
	return set, step{commit: commit, abort: func() { closeExposures(blocks, e.inForce) }}, nil
}

// open returns the exposures of next. One whose settings are those in force is kept.
func (e *exposures) open(next *config.Config, store *meshStore) map[string]*exposure {
	blocks := make(map[string]*exposure, len(next.Expose))
	for _, settings := range next.Expose {
		settings.DeclRange = hcl.Range{}
		name := settings.Name
		one := e.inForce[name]
		if one == nil || one.store != store || !reflect.DeepEqual(one.settings, settings) {
			one = &exposure{settings: settings, namespace: namespaceOf(next.Consul), store: store,
				identity:   store.Use(name, config.ExposedName(name, 1)),
				intentions: store.Intentions(name, settings.UnknownIntentions == config.VerdictAllow),
				end:        make(chan struct{})}
		}
		blocks[name] = one
	}
	return blocks
}

// namespaceOf returns the namespace of what is exposed.
func namespaceOf(c config.Consul) string { return cmp.Or(c.Namespace, "default") }

// showBlocks makes the exposures in force visible, and warns of those that are permissive.
func (e *exposures) showBlocks() {
	all := slices.Collect(maps.Values(e.inForce))
	slices.SortFunc(all, func(a, b *exposure) int { return strings.Compare(a.settings.Name, b.settings.Name) })
	former := e.shown.Swap(&all)
	for _, one := range all {
		if one.settings.Intentions == config.IntentionsPermissive && (former == nil || !slices.Contains(*former, one)) {
			e.d.log.Warn("exposed service is permissive: clients without a certificate are served in plain text, "+
				"whatever the intentions say", "service", one.settings.Name)
		}
	}
}

// closeExposures closes those of some that others do not have.
func closeExposures(some, others map[string]*exposure) {
	for name, one := range some {
		if one != others[name] {
			one.close()
		}
	}
}

// held returns the exposures that are in force or have an instance.
func (e *exposures) held() map[*exposure]bool {
	all := map[*exposure]bool{}
	for _, one := range e.inForce {
		all[one] = true
	}
	for _, one := range e.instances() {
		all[one.of] = true
	}
	return all
}

// closeUnused closes those of former, as held has returned it before, that are not held any more.
func (e *exposures) closeUnused(former map[*exposure]bool) {
	now := e.held()
	for one := range former {
		if !now[one] {
			one.close()
		}
	}
}

func (x *exposure) close() {
	close(x.end)
	x.identity.Close()
	x.intentions.Close()
}

// ready reports whether clients can be served: there is a certificate, and it is known who may come.
func (x *exposure) ready() bool { return x.waitsFor() == "" }

// waitsFor says what is missing before the service can be served. It is empty if nothing is.
func (x *exposure) waitsFor() string {
	select {
	case <-x.identity.Ready():
	default:
		return "there is no certificate of the mesh yet"
	}
	if x.settings.UnknownIntentions == config.VerdictAllow {
		return ""
	}
	select {
	case <-x.intentions.Ready():
		return ""
	default:
		return "the intentions are not known yet"
	}
}

// served returns the instances of set as services of the proxier. What is in force already stays as it is. An instance
// whose service is not in blocks any more keeps its exposure.
func (e *exposures) served(set []sidecar.Instance, blocks map[string]*exposure) []exposed {
	former := map[string]exposed{}
	taken := map[string]bool{} // names
	for _, one := range e.instances() {
		former[one.ID] = one
	}
	for _, i := range set {
		if was, ok := former[i.ID]; ok {
			taken[was.name] = true
		}
	}
	all := make([]exposed, 0, len(set))
	for _, i := range set {
		was, known := former[i.ID]
		one := exposed{Instance: i, name: was.name, of: blocks[i.Service], accept: was.accept}
		if one.of == nil && known {
			one.of = was.of
		}
		if one.of == nil {
			continue // of a predecessor, and not exposed any more
		}
		if !known {
			one.name = e.freeName(i, taken)
		}
		if !known || one.of != was.of || i.Service != was.Service {
			one.accept = e.acceptTLS(one.of, one.name)
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b exposed) int { return strings.Compare(a.name, b.name) })
	return all
}

// freeName returns a name for a new instance, and adds it to taken. An instance that a predecessor has served keeps its
// name.
func (e *exposures) freeName(i sidecar.Instance, taken map[string]bool) string {
	name := e.d.o.Predecessor.State().Exposed[i.ID]
	for n := 1; name == "" || taken[name]; n++ {
		if name = config.ExposedName(i.Service, n); !taken[name] {
			break
		}
	}
	taken[name] = true
	return name
}

// names returns the names of the services by the ID of the registration, for a successor.
func (e *exposures) names() map[string]string {
	all := map[string]string{}
	for _, one := range e.instances() {
		all[one.ID] = one.name
	}
	return all
}

// acceptTLS returns how TLS is spoken with the clients of a new instance, which is a service of x. name is that of the
// service of the proxier.
func (e *exposures) acceptTLS(x *exposure, name string) *proxy.AcceptTLS {
	server := x.identity.Server(mesh.ServerOptions{Admit: func(c mesh.Client) error {
		err := x.admit(c)
		e.forbidden.note(name, c.URI, forbiddenEntry, err)
		return err
	}})
	return &proxy.AcceptTLS{Config: server.Config, Timeout: x.settings.HandshakeTimeout,
		Plain: x.settings.Intentions == config.IntentionsPermissive}
}

// admit returns nil if a client of the mesh may use the service. Otherwise the error wraps proxy.ErrForbidden.
func (x *exposure) admit(c mesh.Client) error {
	if !x.lists(c) {
		return fmt.Errorf("%w: allow_identities does not have it", proxy.ErrForbidden)
	}
	if d := x.intentions.Decide(c); !d.Allowed {
		return fmt.Errorf("%w: %v", proxy.ErrForbidden, d)
	}
	return nil
}

// lists reports whether allow_identities has the client, or is not set.
func (x *exposure) lists(c mesh.Client) bool {
	all := x.settings.AllowIdentities
	return len(all) == 0 || slices.Contains(all, c.URI) || c.Namespace == x.namespace && slices.Contains(all, c.Service)
}

// exposedServices returns the services of the proxier for all.
func exposedServices(all []exposed) []proxy.Service {
	var services []proxy.Service
	for i := range all {
		s := all[i].service()
		one := proxyService(&s, all[i].accept, nil)
		one.MaxPerIdentity = all[i].of.settings.MaxConnectionsPerIdentity
		services = append(services, one)
	}
	return services
}

// service returns the instance as a service of the configuration.
func (x *exposed) service() config.Service {
	s := &x.of.settings
	return config.Service{
		Name: x.name, Protocol: config.TCP, Listen: []config.Listener{{Addr: x.Listen}},
		Allow: s.Allow, Deny: s.Deny,
		MaxConnections: s.MaxConnections, MaxConnectionsPerClient: s.MaxConnectionsPerClient,
		MaxQueue: s.MaxQueue, QueueTimeout: s.QueueTimeout, SendProxy: s.SendProxy,
		MaxFails: config.Off, MinAvailable: config.Off, EmptyWait: config.Off,
		ConnectTimeout: s.ConnectTimeout, IdleTimeout: s.IdleTimeout, HalfCloseTimeout: s.HalfCloseTimeout,
		MaxAge: s.MaxAge, MaxAgeGrace: s.MaxAgeGrace,
		Static: &config.Static{Endpoints: []config.StaticEndpoint{{Addr: x.Local}}},
	}
}

// exposedSets returns the set of each instance, which has one endpoint.
func exposedSets(all []exposed) []lb.Endpoints {
	var sets []lb.Endpoints
	for _, x := range all {
		sets = append(sets, lb.Endpoints{Service: x.name, Endpoints: []lb.Endpoint{{ID: x.ServiceID, Addr: x.Local}}})
	}
	return sets
}

// exposedNames returns the names of the services of the proxier.
func exposedNames(all []exposed) (names []string) {
	for _, x := range all {
		names = append(names, x.name)
	}
	return names
}

// configureExposed sets the balancing options of the instances.
func configureExposed(b *lb.RoundRobin, all []exposed) {
	for i := range all {
		b.Configure(all[i].name, balancing(all[i].service(), nil))
	}
}

// leadsBack reports whether clients of an instance at addr would reach the admin API. Longer ways back are found when
// the instance is judged as an endpoint.
func (e *exposures) leadsBack(addr netip.AddrPort) bool {
	return !e.d.cycles.Usable("", lb.Endpoint{Addr: addr})
}

// serve gives the instances of set a listener each, and closes those of all others. It waits for a reload that is under
// way. After an error nothing has changed; that is so if the registrar that calls is not in force any more.
func (e *exposures) serve(by *registrar, set []sidecar.Instance) error {
	d := e.d
	ctx, cancel := d.untilTheEnd(d.ctx)
	defer cancel()
	if err := d.reloading.take(ctx); err != nil {
		return err
	}
	defer d.reloading.giveBack()
	if by := d.upgrades.Successor(); by != nil {
		return &upgrade.ReplacedError{By: *by}
	}
	if e.registrar.Load() != by {
		return errors.New("a reload has replaced the registrar")
	}
	all := e.served(set, e.inForce)
	if len(all) < len(set) {
		return errors.New("a reload has removed a service")
	}
	cfg := d.cfg.Load()
	sources := &sources{d: d, client: d.consul.Load(), consul: d.consulInput, sameConsul: true, exposed: all,
		static: d.startStatic(cfg, all)}
	services := append(proxyServices(cfg, d.keys.inForce), exposedServices(all)...)
	if err := d.proxier.Apply(services); err != nil {
		sources.abort()
		return err
	}
	configureExposed(d.balancer, all)
	if !sources.commit(cfg) {
		sources.abort()
		return upgrade.ErrEnding
	}
	former := e.held()
	e.live.Store(&all)
	e.closeUnused(former)
	d.detect(cfg)
	return nil
}

// intentionsChanged makes judge look at the clients of a service. It does not block.
func (e *exposures) intentionsChanged(service string) {
	e.mu.Lock()
	e.changed[service] = true
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// judge resets live connections that intentions have begun to deny, until ctx ends.
func (e *exposures) judge(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		}
		e.mu.Lock()
		changed := e.changed
		e.changed = map[string]bool{}
		e.mu.Unlock()
		for _, one := range e.instances() {
			if changed[one.Service] {
				e.d.proxier.Reexamine(one.name, func(peer *proxy.TLSPeer) error {
					err := one.of.reexamine(peer)
					e.forbidden.note(one.name, peer.Identity(), forbiddenNow, err)
					return err
				})
			}
		}
	}
}

// reexamine returns nil if a client that is connected may go on.
func (x *exposure) reexamine(peer *proxy.TLSPeer) error {
	c, err := mesh.ClientOf(peer.Certificate)
	if err != nil {
		return err
	}
	return x.admit(c)
}
