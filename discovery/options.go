package discovery

import (
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// ConsulOptions say how to reach a Consul agent, and what to watch. Environment variables such as CONSUL_HTTP_ADDR have
// no effect.
type ConsulOptions struct {
	// Address is the address of the agent's HTTP API, in one of these forms. An empty Address means "127.0.0.1:8500".
	//
	//	127.0.0.1:8500                       HTTP
	//	http://consul.example.com:8500       HTTP
	//	https://consul.example.com/prefix    HTTPS, here behind a reverse proxy
	//	unix:///run/consul.sock              HTTP over a Unix socket
	Address string

	// More holds further addresses of the same cluster, in order of preference, for when Address does not answer.
	More []string

	// Client is the client to use. The fields that say how to reach Consul must be those that it was made with. A nil
	// Client means that NewConsul makes one.
	Client *consul.Client

	// Token is the ACL token. An empty Token means the agent's default token.
	Token string

	// TokenFile is a file that contains the token; it takes precedence over Token. Each query reads the file again, so
	// the token can be replaced at run time. While the file cannot be read, queries use the last token. An empty
	// TokenFile means no file.
	TokenFile string

	// HTTPAuth is "user:password", for a reverse proxy with basic authentication. An empty HTTPAuth means no
	// authentication.
	HTTPAuth string

	// Datacenter is the datacenter for queries that name none. An empty Datacenter means the agent's own datacenter.
	Datacenter string

	// Namespace and Partition are sent with each query. Only Consul Enterprise accepts them. An empty one is not sent.
	Namespace, Partition string

	// TLS applies only to an https:// address.
	TLS TLSOptions

	// Logger receives messages for operators. The messages never contain tokens. A nil Logger means no log.
	Logger hclog.Logger

	// OnEvent is called for each Event. Several goroutines call OnEvent at once, and wait for it, so OnEvent must
	// return soon. A nil OnEvent means no calls.
	OnEvent func(Event)

	// Usable reports whether an endpoint may get clients of a service. Unusable endpoints do not count when a tier is
	// checked for enough endpoints. Usable must not call the Consul. Call Consul.Recount when the answers of Usable
	// have changed. If Usable is nil, all endpoints are usable.
	Usable func(service string, e lb.Endpoint) bool

	// Prober checks whether held endpoints can be reached from this host. If Prober is nil, no endpoint can be probed,
	// and endpoints are held for Guard.Hold at most.
	Prober Prober

	// Failing returns how many of endpoints fail from this host, for example because they are ejected. The endpoints
	// need not be in the set of the service. Failing must not call the Consul. Call Consul.HealthChanged when an answer
	// of Failing has changed. Failing is called only for services with Failover.OnHealth. If Failing is nil, no
	// endpoint ever fails.
	Failing func(service string, endpoints []lb.Endpoint) int

	// OnStandby receives the standby endpoints of a service, in place of earlier ones. Standby endpoints belong to
	// tiers that the service has left because all endpoints failed; they should be checked although they are not in the
	// set. The first call comes when the service has a set, even if there are no standby endpoints. OnStandby must not
	// call the Consul, and must not wait. A nil OnStandby means no calls.
	OnStandby func(service string, endpoints []lb.Endpoint)

	// Watches say what to watch until Consul.Apply replaces them. No two Watches may have the same Service.
	Watches []Watch

	// StateDir is a folder in which the sets of all watches are saved. Changed sets are saved at most once a second.
	// The folder is created if it does not exist. NewConsul reads the sets that an earlier process has saved, see
	// Consul.Saved. An empty StateDir means that nothing is saved.
	StateDir string

	// Saved holds the sets of an earlier process, as its Consul.Save returned them. Saved takes precedence over the
	// sets in StateDir. A nil Saved means none.
	Saved []byte

	// MaxWatches limits how many queries may run at once, except over HTTP/2 (https). Each query needs a connection.
	// The agent allows 200 connections per client address, unless limits.http_max_conns_per_client says otherwise.
	// Watches beyond the limit take turns. A zero MaxWatches means 150. A negative MaxWatches means no limit.
	MaxWatches int

	// Wait is how long Consul may hold a query while nothing changes, plus or minus a tenth. After Consul has lost its
	// state, for example by a restored snapshot, a change can stay unnoticed for that long. Wait should therefore be
	// well below a minute. A zero Wait means 45 seconds.
	Wait time.Duration

	// Resync is how often each watch asks the servers instead of the agent's own view of the catalog. A zero Resync
	// means 5 minutes. A negative Resync means never.
	Resync time.Duration

	// MinBackoff and MaxBackoff limit the pause before a failed query is repeated. Each pause is a random part of a
	// bound that doubles from MinBackoff to MaxBackoff. A zero MinBackoff means 100 milliseconds, and a zero MaxBackoff
	// means 10 seconds.
	MinBackoff, MaxBackoff time.Duration

	// ProbeInterval is how long Consul may be silent before Lictor probes whether the agent still answers. A zero
	// ProbeInterval means 10 seconds. A negative ProbeInterval means never. Without probes, Lictor notices a hanging
	// agent only when a query has taken 15 seconds longer than Wait.
	ProbeInterval time.Duration
}

// TLSOptions configure TLS for an agent at an https:// address.
type TLSOptions = consul.TLSOptions

// client returns the options of the client for the agent.
func (o ConsulOptions) client() consul.Options {
	return consul.Options{
		Address: o.Address, More: o.More, Token: o.Token, TokenFile: o.TokenFile, HTTPAuth: o.HTTPAuth,
		Namespace: o.Namespace, Partition: o.Partition, TLS: o.TLS, Logger: o.Logger,
	}
}

// A Query selects instances in Consul's catalog. The selected instances belong to Service, have all Tags, pass Filter,
// and have one of Statuses.
type Query struct {
	Service    string   // Consul's name of the service; upper and lower case are the same
	Tags       []string // tags that an instance must have; upper and lower case are the same
	Filter     string   // expression in Consul's filter language; empty: no filter
	Datacenter string   // empty: the datacenter of ConsulOptions
	Peer       string   // cluster peering that has the instances; empty: instances of the datacenter

	// Namespace and Partition are those of the service. Only Consul Enterprise accepts them. An empty one means that of
	// ConsulOptions.
	Namespace, Partition string

	// Statuses holds some of "passing", "warning" and "critical". The status of an instance is the worst status of its
	// checks and its node's checks. An empty Statuses means passing only.
	Statuses []string

	// Prepared is the name or ID of a prepared query, which is executed every few seconds. Apart from Prepared, only
	// Datacenter, Near, Statuses, Port, Address, Prefer, ServerNameMeta and ServerNameTag apply. An empty Prepared
	// means no prepared query.
	Prepared string

	// SocketPaths holds patterns of path.Match for the absolute paths of Unix sockets. An instance that listens on a
	// Unix socket is an endpoint only if a pattern matches its path, and if it is on the agent's own node. Whoever may
	// register such instances chooses among the sockets that match. An empty SocketPaths allows no Unix sockets.
	SocketPaths []string

	// Near is the node from which Consul sorts instances by distance; "_agent" is the agent's node. Near does not
	// change the set, but makes the servers answer each query. An empty Near means no sorting.
	Near string

	// Port is the name of one of an instance's ports, which Consul 1.22 and later know. An instance without a port of
	// that name is not in the set. An empty Port means the default port.
	Port string

	// Address is the name of a tagged address, such as "wan". The endpoint is at the tagged address of the service, or
	// else of the node, or else at the usual address: that of the service, or else of the node. If the tagged address
	// of the service has a port, that port counts instead of the default port, but not instead of Port. An empty
	// Address means the usual address.
	Address string

	// Prefer says which instances are near this host. It sets the Zone and Near of endpoints, and does not change which
	// instances are in the set.
	Prefer Prefer

	// ServerNameMeta is the key in an instance's meta whose value becomes the ServerName of the endpoint. If it is not
	// set, ServerNameTag is how the tag begins that has the ServerName as its rest; of several tags, the first counts.
	// An instance without such a name, or with one that is neither a host name nor an IP address, has an empty
	// ServerName. If both fields are empty, no instance has a ServerName.
	ServerNameMeta, ServerNameTag string

	// Mesh selects the ways into Consul's service mesh that lead to Service: sidecars, instances that speak mTLS
	// themselves, and terminating gateways. The endpoints have an Identity. Gateways have a ServerName, by which they
	// know the service. Prepared and Peer must be empty, and ServerNameMeta and ServerNameTag have no effect. Unlike in
	// other queries, upper and lower case of Service differ.
	Mesh bool

	// chain says that the query is for the discovery chain of Service in Datacenter, not for instances.
	chain bool

	// sni is the ServerName of all endpoints if Mesh is set. If it is empty, only gateways have a ServerName.
	sni string
}

// A Watch says where the endpoints of a service come from. The endpoints come from Consul's answers to Query. If Query
// yields too few endpoints, they come from the first tier of Next that has enough. Watches with the same query and
// guard share one query to Consul. Watches that only take other parts of the same answer, for example another Port,
// share the queries that wait for a change.
type Watch struct {
	Service string // Lictor's name of the service
	Query   Query  // an empty Query.Service means Service
	Guard   Guard

	// Chain says that the tiers come from Consul's discovery chain for Query.Service in Query.Datacenter, and follow it
	// when it changes. Query.Mesh must be set and Next must be empty. Query's tags and filter apply to all tiers. If
	// Query.Statuses is empty, instances with a warning count too, except in a subset with OnlyPassing. If
	// Query.Address is empty, instances of other datacenters are reached at their address called wan. While the chain
	// cannot be read, or Lictor cannot follow it, the service keeps its last tiers.
	Chain bool

	Next     []Tier
	Failover Failover

	// Leaves says how much to find out about endpoints that leave, in all tiers.
	Leaves Leaves
}

// A Tier is a query or a list of endpoints. The tiers of a service stand in order of preference.
type Tier struct {
	Query     Query
	Guard     Guard
	Endpoints []lb.Endpoint // nil: use Query
	name      string        // empty: named by its place
}

// A Failover sets the conditions under which a service changes from one tier to another.
type Failover struct {
	// Below is how many endpoints a tier needs. The service leaves a tier with fewer endpoints for the next tier that
	// has enough. Failing endpoints count, unless all endpoints of the tier fail. A zero Below means 1.
	Below int

	// Hold is how long an earlier tier must have enough endpoints before the service returns to it. A zero Hold means
	// 30 seconds. A negative Hold means that the service returns at once.
	Hold time.Duration

	// OnHealth says that the service also leaves a tier if all its endpoints fail from this host. Another tier must
	// have an endpoint that does not fail.
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

	// pollInterval is the time between two executions of a prepared query. Consul has no blocking query for prepared
	// queries.
	pollInterval = 5 * time.Second

	// probeTimeout is how long the agent may take to answer a probe. A busy agent without enough processor time needs
	// seconds.
	probeTimeout = 5 * time.Second

	// slowBackoff is the least bound of the pause if a quick repetition is pointless or makes things worse. slowBackoff
	// applies to too many connections, a missing permission, and a query that Consul refuses.
	slowBackoff = time.Second

	// rampStep is the time between the first queries of two watches. An agent needs nearly a millisecond to start a
	// view of a service, and keeps some of its processor time because of this pause.
	rampStep = 500 * time.Microsecond

	// explainTimeout limits the query that finds out why endpoints have vanished.
	explainTimeout = 5 * time.Second

	// maxUntold is how many departures a service keeps while nothing is sent to its sink.
	maxUntold = 1024

	// minWait is the shortest wait that Lictor asks Consul for. Consul treats a wait of zero as five minutes.
	minWait = 10 * time.Millisecond
)

// withDefaults returns o with defaults in place of zeros. Negative intervals stay as they are, because they mean never.
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
