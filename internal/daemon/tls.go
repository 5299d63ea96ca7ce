package daemon

import (
	"crypto/tls"
	"fmt"
	"reflect"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/internal/mesh"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A keyring holds what services need to speak TLS. The certificates of a service stay the same, and its sessions can be
// resumed, as long as its settings do, over any number of reloads.
type keyring struct {
	store *certificates.Store
	mesh  meshKeeper

	// The holder of Daemon.reloading, or the start, uses this field.
	inForce map[string]*serviceTLS // by service; without those that do not speak TLS
}

// A serviceTLS says how a service speaks TLS at its ends. What it does not speak is nil.
type serviceTLS struct {
	clients  tlsWithClients
	endpoint tlsWithEndpoints
}

type tlsWithClients struct {
	settings *config.AcceptTLS
	server   *certificates.Server
	accept   *proxy.AcceptTLS
}

type tlsWithEndpoints struct {
	settings *config.EndpointTLS
	client   *certificates.Client

	// Of a service that enters the service mesh; otherwise nil.
	mesh     *config.Mesh
	store    *meshStore
	identity *mesh.Identity

	endpoint *proxy.EndpointTLS
	probe    *lb.ProbeTLS
}

func newKeyring(log hclog.Logger, report func(certificates.Report)) *keyring {
	return &keyring{store: certificates.NewStore(log, report)}
}

// prepare returns what the services of cfg need. The argument identities has the identities of those in the mesh, as
// meshKeeper.prepare returns it. The step puts both in force, or discards them. An error says which files cannot be
// used.
func (k *keyring) prepare(cfg *config.Config, identities *meshStore) (map[string]*serviceTLS, step, error) {
	next := map[string]*serviceTLS{}
	for i := range cfg.Services {
		s := &cfg.Services[i]
		if s.TLS == nil && s.EndpointTLS == nil && s.Mesh == nil {
			continue
		}
		one := &serviceTLS{}
		next[s.Name] = one
		if err := k.open(one, s, identities); err != nil {
			closeOthers(next, k.inForce)
			return nil, step{}, fmt.Errorf("service %q: %w", s.Name, err)
		}
	}
	commit := func() {
		former := k.inForce
		k.inForce = next
		k.mesh.commit(identities)
		closeOthers(former, next)
	}
	return next, step{commit: commit, abort: func() { closeOthers(next, k.inForce) }}, nil
}

// open opens the ends of a service. An end whose settings are those in force is kept. The argument identities has the
// identities of the services that enter the mesh.
func (k *keyring) open(one *serviceTLS, s *config.Service, identities *meshStore) error {
	was := k.inForce[s.Name]
	if was == nil {
		was = &serviceTLS{}
	}
	if s.TLS != nil {
		if reflect.DeepEqual(was.clients.settings, s.TLS) {
			one.clients = was.clients
		} else if err := one.clients.open(k.store, s); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	switch e := &was.endpoint; {
	case s.Mesh != nil && e.store == identities && reflect.DeepEqual(e.mesh, s.Mesh),
		s.EndpointTLS != nil && reflect.DeepEqual(e.settings, s.EndpointTLS):
		one.endpoint = *e
	case s.Mesh != nil:
		one.endpoint.enter(identities, s)
	case s.EndpointTLS != nil:
		if err := one.endpoint.open(k.store, s); err != nil {
			return fmt.Errorf("endpoint_tls: %w", err)
		}
	}
	return nil
}

func (t *tlsWithClients) open(store *certificates.Store, s *config.Service) error {
	o := certificates.ServerOptions{Service: s.Name, ClientCAFile: s.TLS.ClientCAFile,
		MinVersion: s.TLS.MinVersion.Number(), ALPN: s.TLS.ALPN}
	for _, c := range s.TLS.Certificates() {
		o.Certificates = append(o.Certificates, certificates.Pair(c))
	}
	server, err := store.Server(o)
	if err != nil {
		return err
	}
	*t = tlsWithClients{s.TLS, server, &proxy.AcceptTLS{Config: server.Config, Timeout: s.TLS.Timeout}}
	return nil
}

func (t *tlsWithEndpoints) open(store *certificates.Store, s *config.Service) error {
	e := s.EndpointTLS
	client, err := store.Client(certificates.ClientOptions{
		Service: s.Name, MinVersion: e.MinVersion.Number(), ALPN: e.ALPN,
		Options: optionsOf(e),
	})
	if err != nil {
		return err
	}
	from := e.NameFromInstance()
	config := func(e lb.Endpoint) (*tls.Config, error) {
		name := nameOf(e)
		if from != "" {
			if name = e.ServerName; name == "" {
				return nil, certificates.NoName(from)
			}
		}
		return client.Config(e.Address(), name), nil
	}
	*t = tlsWithEndpoints{settings: e, client: client, endpoint: &proxy.EndpointTLS{Config: config},
		probe: &lb.ProbeTLS{Config: config}}
	return nil
}

// optionsOf returns the files of e, and how it verifies endpoints.
func optionsOf(e *config.EndpointTLS) certificates.Options {
	return certificates.Options{CAFile: e.CAFile, CAPath: e.CAPath, CertFile: e.CertFile, KeyFile: e.KeyFile,
		ServerName: e.ServerName, InsecureSkipVerify: e.InsecureSkipVerify}
}

// nameOf returns the name that the certificate of an endpoint must have, unless the configuration says otherwise.
func nameOf(e lb.Endpoint) string {
	switch {
	case e.Path != "":
		return "localhost"
	case e.Host != "":
		return e.Host
	}
	return e.Addr.Addr().WithZone("").String()
}

// closeOthers closes those ends of some that others do not have.
func closeOthers(some, others map[string]*serviceTLS) {
	for name, one := range some {
		other := others[name]
		if other == nil {
			other = &serviceTLS{}
		}
		if s := one.clients.server; s != nil && s != other.clients.server {
			s.Close()
		}
		if c := one.endpoint.client; c != nil && c != other.endpoint.client {
			c.Close()
		}
		if i := one.endpoint.identity; i != nil && i != other.endpoint.identity {
			i.Close()
		}
	}
}

// probe returns how checks of a service by connection speak TLS. It is nil if they do not.
func (t *serviceTLS) probe() *lb.ProbeTLS {
	if t == nil {
		return nil
	}
	return t.endpoint.probe
}

// of returns the ends of a service for the proxier. They are nil if the service does not speak TLS there.
func (t *serviceTLS) of() (*proxy.AcceptTLS, *proxy.EndpointTLS) {
	if t == nil {
		return nil, nil
	}
	return t.clients.accept, t.endpoint.endpoint
}
