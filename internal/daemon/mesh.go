package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/mesh"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A meshKeeper keeps the Store of identities, as long as a service has one. Its Store stays the same until the settings
// of the agent change. Then another Store begins with what the former one had, so that no connection lacks a
// certificate.
type meshKeeper struct {
	log    hclog.Logger
	report func(mesh.Report)

	// intentionsChanged is called when others than before may use an exposed service. It must not block.
	intentionsChanged func(service string)

	// client returns the client of Consul for a configuration.
	client func(config.Consul) (*consul.Client, error)

	// run runs a function until the daemon ends. A nil run means that Stores do not ask Consul.
	run func(func(context.Context))

	saved   []byte // certificates of another process, for the first Store; secret
	inForce atomic.Pointer[meshStore]
}

// A meshStore is a Store with the settings that it was made from.
type meshStore struct {
	*mesh.Store
	settings config.Consul
	client   *consul.Client
	end      context.CancelFunc // nil if the Store does not run
}

// prepare returns the Store for the services of cfg, or nil if none needs one. A new Store does not run yet.
func (k *meshKeeper) prepare(cfg *config.Config) (*meshStore, error) {
	if !entersMesh(cfg) {
		return nil, nil
	}
	now, saved := k.inForce.Load(), k.saved
	if now != nil {
		if now.settings == cfg.Consul {
			return now, nil
		}
		saved = now.Export()
	}
	client, err := k.client(cfg.Consul)
	if err != nil {
		return nil, fmt.Errorf("service mesh: %w", err)
	}
	store := mesh.NewStore(mesh.Options{Consul: client, Logger: k.log, Report: k.report, Saved: saved,
		IntentionsChanged: k.intentionsChanged})
	return &meshStore{Store: store, settings: cfg.Consul, client: client}, nil
}

// entersMesh reports whether a service reaches its endpoints through the mesh, or is exposed to it.
func entersMesh(cfg *config.Config) bool {
	if len(cfg.Expose) > 0 {
		return true
	}
	for _, s := range cfg.Services {
		if s.Mesh != nil {
			return true
		}
	}
	return false
}

// commit puts what prepare has returned in force, and ends the former Store.
func (k *meshKeeper) commit(next *meshStore) {
	former := k.inForce.Swap(next)
	k.saved = nil
	if former == next {
		return
	}
	if next != nil && k.run != nil {
		if err := forbidDumps(); err != nil {
			k.log.Warn("a core dump of this process would have private keys", "error", err)
		}
		var ctx context.Context
		ctx, next.end = context.WithCancel(context.Background())
		k.run(func(daemon context.Context) {
			defer context.AfterFunc(daemon, next.end)()
			var running sync.WaitGroup
			running.Go(func() { next.client.Run(ctx) })
			next.Run(ctx)
			running.Wait()
			next.client.CloseIdle()
		})
	}
	if former != nil && former.end != nil {
		former.end()
	}
}

// state returns what the Store in force has. It is empty if there is none.
func (k *meshKeeper) state() mesh.State {
	if s := k.inForce.Load(); s != nil {
		return s.State()
	}
	return mesh.State{}
}

// export returns the certificates of the Store in force for another process. The result is secret.
func (k *meshKeeper) export() []byte {
	if s := k.inForce.Load(); s != nil {
		return s.Export()
	}
	return nil
}

// enter makes the service s reach its endpoints through the mesh.
func (t *tlsWithEndpoints) enter(store *meshStore, s *config.Service) {
	identity := store.Use(s.Mesh.As, s.Name)
	config := func(e lb.Endpoint) (*tls.Config, error) { return meshConfig(identity, e) }
	*t = tlsWithEndpoints{mesh: s.Mesh, store: store, identity: identity,
		endpoint: &proxy.EndpointTLS{Config: config, HeaderInside: true, Denies: true},
		probe:    &lb.ProbeTLS{Config: config, HeaderInside: true, Denies: true}}
}

// awaitIdentities waits until the identities of services have certificates, for at most firstAnswer. Their clients
// would be refused until then. It does not wait for a Store that does not run yet.
func awaitIdentities(ctx context.Context, keys map[string]*serviceTLS, log hclog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	var without []string
	for service, one := range keys {
		if one.endpoint.identity == nil || one.endpoint.store.end == nil {
			continue
		}
		select {
		case <-one.endpoint.identity.Ready():
			continue
		case <-ctx.Done():
		}
		select {
		case <-one.endpoint.identity.Ready():
		default:
			without = append(without, service)
		}
	}
	if len(without) > 0 {
		slices.Sort(without)
		log.Warn("services have no certificate of the service mesh yet, and refuse their clients", "number",
			len(without), "services", endpoints.SomeOf(without))
	}
}

// meshConfig returns the configuration for a handshake with e.
func meshConfig(identity *mesh.Identity, e lb.Endpoint) (*tls.Config, error) {
	if e.Identity == "" {
		return nil, errors.New("the instance has no identity in the service mesh, so it cannot be verified")
	}
	c, err := identity.Config(e.Address(), e.Identity, e.ServerName)
	if errors.Is(err, mesh.ErrNotReady) {
		err = fmt.Errorf("%w: %w", lb.ErrNotReady, err)
	}
	return c, err
}

// meshState returns the authorities of the mesh and the identities of the services.
func (d *Daemon) meshState() mesh.State { return d.keys.mesh.state() }

// runUntilEnd runs f in the background. Its context ends with the daemon.
func (d *Daemon) runUntilEnd(f func(context.Context)) { d.running.Go(func() { f(d.ctx) }) }

// meshNews adds an event for what has happened to an identity or to the authorities of the mesh.
func (d *Daemon) meshNews(r mesh.Report) {
	e := endpoints.Event{Kind: endpoints.KindCertificate, Services: r.Services, Text: meshText(r)}
	if len(r.Services) == 1 {
		e.Service, e.Services = r.Services[0], nil
	}
	d.events.Add(e)
}

// meshText describes what has happened to an identity, or to the authorities.
func meshText(r mesh.Report) string {
	if r.Destination != "" {
		return intentionsText(r)
	}
	what, at := "the authorities of the service mesh", r.Expires.UTC().Format(time.RFC3339)
	if r.Identity != "" {
		what = fmt.Sprintf("the certificate of identity %q", r.Identity)
	}
	switch {
	case r.What == mesh.Issued && r.Identity == "":
		return "new connections use new authorities of the service mesh"
	case r.What == mesh.Issued:
		return fmt.Sprintf("%s: new connections use a new one, which expires at %s", what, at)
	case r.What == mesh.Works:
		return what + ": Consul answers again"
	case r.What == mesh.Expiring:
		return fmt.Sprintf("%s: expires soon, at %s%s", what, at, because(r.Err))
	case r.What == mesh.Expired:
		return fmt.Sprintf("%s: has expired at %s%s", what, at, because(r.Err))
	case r.Expires.IsZero():
		return fmt.Sprintf("%s: Consul gives none%s", what, because(r.Err))
	}
	return fmt.Sprintf("%s: Consul gives no new one, the former one stays in use until %s%s", what, at, because(r.Err))
}

// intentionsText describes what has happened to the intentions of an exposed service.
func intentionsText(r mesh.Report) string {
	what := fmt.Sprintf("the intentions of %q", r.Destination)
	if r.What == mesh.Works {
		return what + ": Consul answers again"
	}
	return what + ": Consul does not give them, those that it gave last stay in force" + because(r.Err)
}

// because returns err as the end of a sentence. It is empty if err is nil.
func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}
