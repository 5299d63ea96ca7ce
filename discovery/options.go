package discovery

import (
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// ConsulOptions say how to reach a Consul agent, and what to watch there. The environment (CONSUL_HTTP_ADDR and
// others) does not count.
type ConsulOptions struct {
	// Address is that of the agent's HTTP API, in one of these forms. Empty means "127.0.0.1:8500".
	//
	//	127.0.0.1:8500                       HTTP
	//	http://consul.example.com:8500       HTTP
	//	https://consul.example.com/prefix    HTTPS, here behind a reverse proxy
	//	unix:///run/consul.sock              HTTP over a Unix socket
	Address string

	// Token is the ACL token. Empty means the agent's default token.
	Token string

	// TokenFile is a file with the token, which counts instead of Token. It is read again for each query, so that the
	// token can be replaced. While the file cannot be read, the last token stays in use. Empty means no file.
	TokenFile string

	// HTTPAuth is "user:password", for a reverse proxy with basic authentication. Empty means none.
	HTTPAuth string

	// Datacenter is where queries look that name none. Empty means the agent's own.
	Datacenter string

	// Namespace and Partition are sent with each query. Only Consul Enterprise accepts them. Empty means none.
	Namespace, Partition string

	// TLS counts for an https:// address only.
	TLS TLSOptions

	// Logger takes what operators should know. Tokens never appear in it. Nil means no log.
	Logger hclog.Logger

	// OnEvent is called with what happens to instances. Several goroutines call it at once, and wait for it, so it must
	// return soon. Nil means that it is not called.
	OnEvent func(Event)

	// Usable reports whether an endpoint can get clients of a service. One that cannot does not count for whether a
	// tier has enough endpoints. It must not call the Consul. When its answers have changed, call Consul.Recount. Nil
	// means that all endpoints are usable.
	Usable func(service string, e lb.Endpoint) bool

	// Prober finds out whether endpoints that Consul does not count any more can be reached from here. Nil means that
	// nothing can be probed: then such endpoints are held for Guard.Hold at most.
	Prober Prober

	// Failing returns how many of endpoints, which need not be in the set of the service, fail from here: they are
	// ejected, say. It must not call the Consul. When an answer has changed, call Consul.HealthChanged. It is asked for
	// services with Failover.OnHealth. Nil means that no endpoint ever fails.
	Failing func(service string, endpoints []lb.Endpoint) int

	// OnStandby is told, in place of what it was told before, the endpoints of a service that should be checked though
	// they are not in its set: they are of tiers whose endpoints all failed. It is first called when the service has a
	// set, even if no endpoint stands by. It must not call the Consul, and must not wait. Nil: it is not called.
	OnStandby func(service string, endpoints []lb.Endpoint)

	// Watches say what is watched until Consul.Apply says otherwise. No two may have the same Service.
	Watches []Watch

	// StateDir is a folder for the sets of all watches. They are saved there as they change, at most once a second. The
	// folder is made if need be. NewConsul reads what an earlier process has saved: see Consul.Saved. Empty means that
	// nothing is saved.
	StateDir string

	// Saved are the sets of an earlier process, as its Consul.Save returned them. They count instead of those in
	// StateDir. Nil means none.
	Saved []byte

	// MaxWatches is how many queries may be under way at once, except over HTTP/2 (https). Each takes a connection, and
	// the agent allows a host 200 unless limits.http_max_conns_per_client says otherwise. If there are more watches,
	// they take turns. Zero means 150. Negative means any number.
	MaxWatches int

	// Wait is how long Consul may hold a query while nothing changes, give or take a tenth. After Consul has lost its
	// memory, as by a restored snapshot, a change can go unnoticed for so long. So it should be well below a minute.
	// Zero means 45 seconds.
	Wait time.Duration

	// Resync is how often each watch asks the servers, whatever the agent's own view of the catalog says. Zero means 5
	// minutes. Negative means never.
	Resync time.Duration

	// MinBackoff and MaxBackoff bound the pause before a failed query is repeated. The bound doubles from the first to
	// the second, and the pause is a random part of it. Zero means 100 milliseconds and 10 seconds.
	MinBackoff, MaxBackoff time.Duration

	// ProbeInterval is how long Consul may be silent before it is asked whether it is still there. Zero means 10
	// seconds. Negative means never: then an agent that hangs is noticed only when a query has taken 15 seconds longer
	// than Wait.
	ProbeInterval time.Duration
}

// TLSOptions are for an agent behind https://.
type TLSOptions = consul.TLSOptions

// client returns the options of a client for the agent.
func (o ConsulOptions) client() consul.Options {
	return consul.Options{
		Address: o.Address, Token: o.Token, TokenFile: o.TokenFile, HTTPAuth: o.HTTPAuth,
		Namespace: o.Namespace, Partition: o.Partition, TLS: o.TLS, Logger: o.Logger,
	}
}

// A Query selects instances in the catalog: those of Service that have all Tags, pass Filter and have one of
// Statuses.
type Query struct {
	Service    string   // Consul's name of the service, in any case
	Tags       []string // an instance must have all of them, in any case
	Filter     string   // expression in Consul's filter language; empty: none
	Datacenter string   // empty: that of ConsulOptions
	Peer       string   // name of a cluster peering whose instances are meant; empty: those of the datacenter

	// Statuses are some of "passing", "warning" and "critical". The status of an instance is the worst of its checks
	// and its node's. Empty means passing.
	Statuses []string

	// Prepared is the name or ID of a prepared query, which is asked every few seconds. Besides it, only Datacenter,
	// Near and Statuses count. Empty means none.
	Prepared string

	// Near is a node to sort by distance from, "_agent" for the agent's. The set is the same, but the servers have to
	// answer each query. Empty means none.
	Near string
}

// A Watch says where the endpoints of a service come from: from Consul's answers to Query or, if these have too few
// endpoints, from the first tier of Next that has enough. Watches with the same queries and guards share them.
type Watch struct {
	Service string // Lictor's name of the service
	Query   Query  // an empty Query.Service means Service
	Guard   Guard

	Next     []Tier
	Failover Failover

	// Leaves says how much is to be found out of endpoints that leave, in all tiers.
	Leaves Leaves
}

// A Tier is a query, or a list of endpoints.
type Tier struct {
	Query     Query
	Guard     Guard
	Endpoints []lb.Endpoint // nil: Query counts
}

// A Failover says when a service goes from one tier to another.
type Failover struct {
	// Below is how many endpoints are enough. A tier with fewer is left for the next that has enough. Zero means 1.
	// Endpoints that fail from here count, unless all do.
	Below int

	// Hold is how long an earlier tier must have enough before the service returns to it. Zero means 30 seconds.
	// Negative means that it returns at once.
	Hold time.Duration

	// OnHealth says that a tier is also left when all its endpoints fail from here and another tier has one that
	// does not.
	OnHealth bool
}

// Defaults of the options, and constants that are not configurable.
const (
	defaultWait          = 45 * time.Second
	defaultResync        = 5 * time.Minute
	defaultMinBackoff    = 100 * time.Millisecond
	defaultMaxBackoff    = 10 * time.Second
	defaultProbeInterval = 10 * time.Second
	defaultMaxWatches    = 150
	defaultFailbackHold  = 30 * time.Second

	// pollInterval is the time between two executions of a prepared query, as Consul cannot wait for its changes.
	pollInterval = 5 * time.Second

	// probeTimeout is how long an agent may take for an answer without its servers. A starved agent takes seconds.
	probeTimeout = 5 * time.Second

	// slowBackoff is the least bound of the pause if to repeat a query soon makes things worse or is pointless: too
	// many connections, no permission, a query that Consul refuses.
	slowBackoff = time.Second

	// rampStep is the time between the first queries of two watches. An agent needs most of a millisecond to begin with
	// a service, and keeps some of its processor time this way.
	rampStep = 500 * time.Microsecond

	// explainTimeout bounds the query that is to say why endpoints have vanished.
	explainTimeout = 5 * time.Second

	// maxUntold is how many departures a service keeps while its sink is not told of anything.
	maxUntold = 1024

	// minWait is the shortest wait that is asked for. Consul takes a wait of zero for five minutes.
	minWait = 10 * time.Millisecond
)

// withDefaults returns o with defaults in place of zeros. Negative intervals stay; they mean never.
func (o ConsulOptions) withDefaults() ConsulOptions {
	fill := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	fill(&o.Wait, defaultWait)
	fill(&o.Resync, defaultResync)
	fill(&o.MinBackoff, defaultMinBackoff)
	fill(&o.MaxBackoff, defaultMaxBackoff)
	fill(&o.ProbeInterval, defaultProbeInterval)
	if o.MaxWatches == 0 {
		o.MaxWatches = defaultMaxWatches
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}
