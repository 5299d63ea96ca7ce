package daemon

import (
	"context"
	"io/fs"
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/internal/healthcheck"
	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/unixsocket"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// consulOptions returns the options to reach Consul. The caller adds the watches.
func consulOptions(c config.Consul, logger hclog.Logger) discovery.ConsulOptions {
	addresses := c.Address.All()
	return discovery.ConsulOptions{
		Address:    addresses[0],
		More:       addresses[1:],
		Token:      string(c.Token),
		TokenFile:  c.TokenFile,
		HTTPAuth:   string(c.HTTPAuth),
		Datacenter: c.Datacenter,
		Namespace:  c.Namespace,
		Partition:  c.Partition,
		TLS:        discovery.TLSOptions(c.TLS),
		MaxWatches: c.MaxWatches,
		Logger:     logger,
	}
}

// queryOf converts a query of the configuration for discovery.
func queryOf(q config.ConsulQuery) discovery.Query {
	return discovery.Query{Service: q.Service, Tags: q.Tags, Filter: q.Filter, Datacenter: q.Datacenter, Near: q.Near,
		Namespace: q.Namespace, Partition: q.Partition, Statuses: q.Statuses, SocketPaths: q.SocketPaths, Peer: q.Peer,
		Prepared: q.PreparedQuery, Port: q.Port, Address: q.Address}
}

// queryFor converts a query of a service of cfg, which may ask instances for the names in their certificates, and for
// where they are.
func queryFor(cfg *config.Config, s *config.Service, q config.ConsulQuery) discovery.Query {
	query := queryOf(q)
	if s.Prefer != "" {
		query.Prefer = discovery.Prefer{By: s.Prefer, Region: cfg.Region, Zone: cfg.Zone}
	}
	if t := s.EndpointTLS; t != nil {
		query.ServerNameMeta, query.ServerNameTag = t.ServerNameMeta, t.ServerNameTag
	}
	return query
}

// watchOf converts a Consul service of cfg for discovery.
func watchOf(cfg *config.Config, s config.Service) discovery.Watch {
	w := discovery.Watch{
		Service: s.Name, Query: queryFor(cfg, &s, *s.Consul), Guard: guardOf(*s.Consul),
		Failover: discovery.Failover{
			Below: s.FailoverBelow, Hold: s.FailbackHold, OnHealth: s.FailoverOn == config.FailoverOnHealth,
		},
		Leaves: leavesOf(s.OnLeave),
		Chain:  s.Mesh != nil,
	}
	w.Query.Mesh = s.Mesh != nil
	for _, q := range s.Failover {
		w.Next = append(w.Next, discovery.Tier{Query: queryFor(cfg, &s, q), Guard: guardOf(q)})
	}
	if s.Static != nil {
		static := endpointsOf(*s.Static)
		if s.EndpointTLS.NameFromInstance() != "" {
			for i := range static { // they have no registration that gives a name
				static[i].ServerName = nameOf(static[i])
			}
		}
		w.Next = append(w.Next, discovery.Tier{Endpoints: static})
	}
	return w
}

// leavesOf returns how much discovery must find out about endpoints that vanish from Consul's answers, so that o can be
// applied to their connections.
func leavesOf(o config.OnLeave) discovery.Leaves {
	switch {
	case o.Deregistered == config.LeaveFinish && o.Unmatched == config.LeaveFinish:
		return discovery.LeavesIgnored
	case o.Deregistered == o.Unmatched:
		return discovery.LeavesConfirmed
	}
	return discovery.LeavesExplained
}

// endpointsOf returns the endpoints of a static list.
func endpointsOf(s config.Static) []lb.Endpoint {
	var endpoints []lb.Endpoint
	for _, e := range s.Endpoints {
		endpoint := lb.Endpoint{Host: e.Host, Path: e.Path, Addr: e.Addr}
		endpoint.ID = endpoint.Address()
		endpoints = append(endpoints, endpoint)
	}
	return endpoints
}

// guardOf converts the limits on a shrinking set for discovery.
func guardOf(q config.ConsulQuery) discovery.Guard {
	return discovery.Guard{MaxDrop: q.MaxDrop, Hold: q.DropHold, HoldMax: discovery.HoldMax(q.HoldMax)}
}

// newConsul returns the source of all Consul services, or nil if there are none. The argument saved is the state of an
// earlier process, or empty. The source reports standby endpoints to standby.
func (d *Daemon) newConsul(cfg *config.Config, saved []byte, standby *standbyReports) (*discovery.Consul, error) {
	options := consulOptions(cfg.Consul, d.log)
	options.StateDir, options.Saved = cfg.StateDir, saved
	options.OnEvent, options.Usable, options.Prober = d.events.Discovered, d.cycles.Usable, heldProber{d}
	options.Failing, options.OnStandby = d.failing, standby.Report
	options.Watches = watchesOf(cfg)
	if len(options.Watches) == 0 {
		return nil, nil
	}
	var err error
	if options.Client, err = d.clientOf(cfg.Consul); err != nil {
		return nil, err
	}
	return discovery.NewConsul(options)
}

// A heldProber probes held endpoints, which Consul no longer reports. If the service has an HTTP check and the check
// gets an answer, that answer decides. Without such an answer, a connection attempt decides, because the HTTP server
// may be restarting beside the endpoint.
type heldProber struct{ d *Daemon }

// CanProbe implements discovery.Prober.
func (p heldProber) CanProbe(service string) bool { return p.d.prober.CanProbe(service) }

// Probe implements discovery.Prober.
func (p heldProber) Probe(ctx context.Context, service string, e lb.Endpoint) error {
	if answered, err := p.d.checker.Probe(ctx, service, e); answered {
		return err
	}
	return p.d.prober.Probe(ctx, service, e)
}

// savedSets returns the saved sets of an earlier Lictor. The argument consul may be nil.
func savedSets(consul *discovery.Consul) []lb.Endpoints {
	if consul == nil {
		return nil
	}
	return consul.Saved()
}

// watchesOf returns the watches that the configuration needs in Consul.
func watchesOf(cfg *config.Config) []discovery.Watch {
	var watches []discovery.Watch
	for _, s := range cfg.Services {
		if s.Consul != nil {
			watches = append(watches, watchOf(cfg, s))
		}
	}
	return watches
}

// serviceNames returns the names of all services.
func serviceNames(cfg *config.Config) []string {
	return append(consulNames(cfg), staticNames(cfg)...)
}

func consulNames(cfg *config.Config) (names []string) {
	for _, s := range cfg.Services {
		if s.Consul != nil {
			names = append(names, s.Name)
		}
	}
	return names
}

func staticNames(cfg *config.Config) (names []string) {
	for _, s := range cfg.Services {
		if s.Consul == nil {
			names = append(names, s.Name)
		}
	}
	return names
}

// staticSets returns the sets of all services that have only static endpoints.
func staticSets(cfg *config.Config) []lb.Endpoints {
	var sets []lb.Endpoints
	for _, s := range cfg.Services {
		if s.Static != nil && s.Consul == nil {
			sets = append(sets, lb.Endpoints{Service: s.Name, Endpoints: endpointsOf(*s.Static)})
		}
	}
	return sets
}

// proxyServices converts all services for the proxier. The argument keys has their TLS, as keyring.prepare returns it.
func proxyServices(cfg *config.Config, keys map[string]*serviceTLS) []proxy.Service {
	var services []proxy.Service
	for i := range cfg.Services {
		acceptTLS, endpointTLS := keys[cfg.Services[i].Name].of()
		services = append(services, proxyService(&cfg.Services[i], acceptTLS, endpointTLS))
	}
	return services
}

// proxyService converts a service for the proxier.
func proxyService(s *config.Service, acceptTLS *proxy.AcceptTLS, endpointTLS *proxy.EndpointTLS) proxy.Service {
	addrs, sockets := listenersOf(s.Listen)
	return proxy.Service{
		Name:             s.Name,
		Protocol:         protocolOf(s.Protocol),
		Listen:           addrs,
		Sockets:          sockets,
		SNI:              s.SNI,
		ConnectTimeout:   s.ConnectTimeout,
		IdleTimeout:      s.IdleTimeout,
		HalfCloseTimeout: s.HalfCloseTimeout,
		OnLeave:          onLeaveOf(s.OnLeave),
		MaxAge:           s.MaxAge,
		MaxAgeGrace:      s.MaxAgeGrace,
		MaxPerClient:     s.MaxConnectionsPerClient,
		Allow:            s.Allow,
		Deny:             s.Deny,
		AcceptProxy:      acceptProxyOf(s.AcceptProxy),
		SendProxy:        proxyproto.Version(s.SendProxy),
		SendProxyFirst:   s.SendProxyUDP == config.ProxyFirst,
		AcceptTLS:        acceptTLS,
		EndpointTLS:      endpointTLS,
		Transparent:      s.Transparent,
		MaxSessions:      s.MaxSessions,
		Responses:        s.Responses,
		Requests:         s.Requests,
	}
}

// listenersOf converts listeners for the proxier: those at addresses, and those at Unix sockets.
func listenersOf(all []config.Listener) (addrs []netip.AddrPort, sockets []proxy.SocketFile) {
	for _, l := range all {
		if l.Path == "" {
			addrs = append(addrs, l.Addr)
			continue
		}
		access := unixsocket.Access{Mode: fs.FileMode(l.Mode), Owner: l.Owner, Group: l.Group}
		sockets = append(sockets, proxy.SocketFile{Path: l.Path, Access: access})
	}
	return addrs, sockets
}

// onLeaveOf converts the on_leave settings for the proxier.
func onLeaveOf(o config.OnLeave) proxy.OnLeave {
	return proxy.OnLeave{Deregistered: time.Duration(o.Deregistered), Critical: time.Duration(o.Critical),
		Unmatched: time.Duration(o.Unmatched)}
}

// acceptProxyOf converts an accept_proxy block for the proxier.
func acceptProxyOf(a *config.AcceptProxy) *proxy.AcceptProxy {
	if a == nil {
		return nil
	}
	return &proxy.AcceptProxy{From: a.From, Timeout: a.Timeout}
}

// configure sets the balancing options of all services. The argument keys has their TLS.
func configure(b *lb.RoundRobin, cfg *config.Config, keys map[string]*serviceTLS) {
	for _, s := range cfg.Services {
		b.Configure(s.Name, balancing(s, keys[s.Name].probe()))
	}
}

// checksOf returns the checks by connection or by datagram, by service.
func checksOf(cfg *config.Config) map[string]lb.Check {
	all := map[string]lb.Check{}
	for _, s := range cfg.Services {
		if c := s.Check; c != nil && c.HTTP == "" {
			all[s.Name] = lb.Check{Interval: c.Interval, Timeout: c.Timeout, Send: string(c.Send), Expect: c.Expect}
		}
	}
	return all
}

// healthChecksOf returns the HTTP checks, by service.
func healthChecksOf(cfg *config.Config) map[string]healthcheck.Check {
	all := map[string]healthcheck.Check{}
	for _, s := range cfg.Services {
		if c := s.Check; c != nil && c.HTTP != "" {
			check := healthcheck.Check{Path: c.HTTP, Port: uint16(c.Port), Interval: c.Interval,
				Timeout: c.Timeout, MaxSilence: c.MaxSilence, Header: proxyproto.Version(s.SendProxy)}
			switch e := s.EndpointTLS; {
			case c.TLS != nil:
				check.HTTPS, check.TLS = true, certificates.Options(*c.TLS)
			case e != nil && c.Port == 0: // the port of the clients speaks TLS
				check.HTTPS, check.TLS, check.NameFrom = true, optionsOf(e), e.NameFromInstance()
			}
			all[s.Name] = check
		}
	}
	return all
}

// balancing converts the balancing options of a service.
func balancing(s config.Service, probe *lb.ProbeTLS) lb.Options {
	o := lb.Options{
		Policy:         policyOf(s.Balance),
		Prefer:         preferenceOf(s),
		Sticky:         s.Sticky,
		MaxFails:       s.MaxFails,
		MinAvailable:   s.MinAvailable,
		SlowStart:      s.SlowStart,
		MaxConnections: s.MaxConnections,
		MaxPerEndpoint: s.MaxConnectionsPerEndpoint,
		ProbeHeader:    proxyproto.Version(s.SendProxy),
		ProbeTLS:       probe,
	}
	if s.Protocol == config.UDP {
		o.Network = lb.UDP
	} else {
		o.MaxQueue, o.QueueTimeout, o.EmptyWait = s.MaxQueue, s.QueueTimeout, s.EmptyWait
	}
	return o
}

// preferenceOf returns how the service prefers near endpoints.
func preferenceOf(s config.Service) lb.Preference {
	switch {
	case s.Prefer == "":
		return lb.PreferNone
	case s.PreferStrict:
		return lb.PreferStrict
	}
	return lb.PreferFair
}

func policyOf(b config.Balance) lb.Policy {
	switch b {
	case config.LeastConnections:
		return lb.PolicyLeastConnections
	case config.RandomTwo:
		return lb.PolicyRandomTwo
	case config.SourceHash:
		return lb.PolicySourceHash
	}
	return lb.PolicyRoundRobin
}

func protocolOf(p config.Protocol) proxy.Protocol {
	if p == config.UDP {
		return proxy.UDP
	}
	return proxy.TCP
}

func engineOf(e config.Engine) proxy.Engine {
	if e == config.EnginePortable {
		return proxy.EnginePortable
	}
	return proxy.EngineAuto
}
