package discovery

import (
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// ConsulOptions say how to reach a Consul agent and what to watch there. The environment (CONSUL_HTTP_ADDR and its kin) is not
// looked at: whoever fills this in decides whether it counts.
type ConsulOptions struct {
	// Address of the agent's HTTP API: "host:port", "http://host:port", "https://host:port", each of the latter two with a path
	// if it is behind a reverse proxy, or "unix:///path" of a socket. Empty: "127.0.0.1:8500".
	Address string

	// Token is the ACL token; empty: the agent's default token. TokenFile, where not empty, is a file that holds it instead. It
	// is read again for each query, so that a token can be rotated; while it cannot be read, the last token stays in use.
	Token, TokenFile string

	// HTTPAuth is "user:password" for a reverse proxy that wants basic authentication. Empty: none.
	HTTPAuth string

	// Datacenter is where queries that name none look. Empty: the agent's own.
	Datacenter string

	// Namespace and Partition are for Consul Enterprise; other Consuls refuse queries that have them.
	Namespace, Partition string

	// TLS counts only for an https:// address.
	TLS TLSOptions

	// Logger takes what operators should know. Nil: silence. Tokens never appear in it.
	Logger hclog.Logger

	// OnEvent is told what happens to instances. It is called by those who follow Consul, several at once, so it must not wait. Nil: nobody is.
	OnEvent func(Event)

	// Usable reports whether an endpoint could get clients of a service. One that could not does not count for whether
	// a tier has enough. It must not call the Consul. Consul.Recount says that its answers are others now. Nil: all
	// could.
	Usable func(service string, e lb.Endpoint) bool

	// Watches say what to watch until Consul.Apply says otherwise. No two may be for the same Service.
	Watches []Watch

	// StateDir is a folder in which the sets of all watches are saved as they change, at most once a second; it is made if need be.
	// NewConsul reads what an earlier process has saved there: see Consul.Saved. Empty: nothing is saved.
	StateDir string

	// Saved are the sets of an earlier process, as its Consul.Save returned them; they count instead of those in StateDir.
	Saved []byte

	// MaxWatches is how many queries may be under way at once, other than over HTTP/2 (https): each takes a connection there, and the agent
	// allows a host 200 unless limits.http_max_conns_per_client says otherwise. With more watches than that, they take turns.
	// Zero: 150. Negative: any number.
	MaxWatches int

	// Wait is how long Consul may hold a query when nothing changes, give or take a tenth. Zero: 45 seconds. It should stay well
	// under a minute: it bounds for how long a change can go unnoticed after Consul lost its memory (a restored snapshot).
	Wait time.Duration

	// Resync is how often each watch is read in full from Consul's servers, whatever the blocking queries say: a net under the
	// agent's view of the catalog. Zero: 5 minutes. Negative: never.
	Resync time.Duration

	// MinBackoff and MaxBackoff bound the pause before a failed query is repeated; it doubles from one to the other, and is then
	// multiplied by a random number below 1. Zero: 100 milliseconds and 10 seconds.
	MinBackoff, MaxBackoff time.Duration

	// ProbeInterval is how long Consul may be silent before it is asked whether it is still there. Zero: 10 seconds. Negative: an
	// agent that hangs is noticed only when a query has taken a quarter of a minute longer than Wait.
	ProbeInterval time.Duration
}

// TLSOptions are for an agent behind https://.
type TLSOptions = consul.TLSOptions

// client is how to reach the agent.
func (o ConsulOptions) client() consul.Options {
	return consul.Options{
		Address: o.Address, Token: o.Token, TokenFile: o.TokenFile, HTTPAuth: o.HTTPAuth,
		Namespace: o.Namespace, Partition: o.Partition, TLS: o.TLS, Logger: o.Logger,
	}
}

// A Query selects instances in the catalog: those of Service that have all Tags, pass Filter and are in one of Statuses.
type Query struct {
	Service    string   // Consul's name of the service; case does not matter
	Tags       []string // an instance must have all of them; case does not matter
	Filter     string   // expression in Consul's filter language; empty: none
	Datacenter string   // empty: that of ConsulOptions
	Statuses   []string // "passing" and "warning": the worst status that a check of an instance or its node may have; empty: passing
	Peer       string   // name of a cluster peering, whose exported instances are meant; empty: those of the datacenter
	Prepared   string   // name or ID of a prepared query, to be asked every few seconds; besides it only Datacenter, Near and Statuses count
	Near       string   // node to sort by distance from, "_agent" for the agent's; the set is the same, but it is read from the servers
}

// A Watch says where the endpoints of Service come from: Consul's answers to Query, and if there are not enough of them, the first of Next
// that has enough. Watches whose queries and guards come to the same share one.
type Watch struct {
	Service string // Lictor's name of the service
	Query   Query  // with an empty Query.Service: the service called Service
	Guard   Guard

	Next     []Tier
	Failover Failover

	// Leaves is how much is to be found out of endpoints that leave, in whichever tier.
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
	Below int           // a tier with fewer endpoints than this is left for the next that has enough. Zero: 1
	Hold  time.Duration // how long an earlier tier must have enough before the service goes back to it. Zero: 30 seconds. Negative: at once
}

// The options' defaults, and the figures that are nobody's to choose.
const (
	defaultWait          = 45 * time.Second
	defaultResync        = 5 * time.Minute
	defaultMinBackoff    = 100 * time.Millisecond
	defaultMaxBackoff    = 10 * time.Second
	defaultProbeInterval = 10 * time.Second
	defaultMaxWatches    = 150
	defaultFailbackHold  = 30 * time.Second

	// pollInterval is the time between two executions of a prepared query, which cannot be waited for.
	pollInterval = 5 * time.Second

	// probeTimeout is how long an agent may take to answer something that it knows by itself. A starved one takes seconds.
	probeTimeout = 5 * time.Second

	// slowBackoff is where the pauses start when quick repetition would make things worse, or is pointless: too many
	// connections, no permission, a query that Consul refuses.
	slowBackoff = time.Second

	// rampStep is the time between the first queries of two watches. It leaves an agent, which needs most of a millisecond to begin with a
	// service, some of its processor time.
	rampStep = 500 * time.Microsecond

	// explainTimeout bounds the query that is to say why endpoints have vanished.
	explainTimeout = 5 * time.Second

	// maxUntold is how many departures a service keeps while its sink is not told of anything.
	maxUntold = 1024

	// minWait is the shortest wait that is asked for: Consul takes none at all to mean five minutes.
	minWait = 10 * time.Millisecond
)

// withDefaults returns o with defaults in place of zeros. Negative intervals, which mean never, stay.
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
