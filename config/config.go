// Package config turns HCL text into a typed, defaulted and valid [Config], or says everything that is wrong with it at once:
//
//	cfg, diags := config.Load([]string{"/etc/lictor"}, config.Options{})
//	if diags.HasErrors() {
//		diags.WriteText(os.Stderr, false)
//	}
//
// Each problem is an [hcl.Diagnostic] that points to its line and says what to write instead. A file that is not HCL at all gets its
// syntax errors reported and nothing else, for what follows from a half-read file would be noise.
//
// What may be a secret is masked in the source lines that diagnostics show: see [Diagnostics]. There are no variables, functions or
// includes: a configuration is plain values, merged from files and directories.
package config

import (
	"net/netip"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// Defaults of arguments that are left out.
const (
	DefaultShutdownGrace    = 10 * time.Second
	DefaultConnectTimeout   = time.Second
	DefaultIdleTimeoutTCP   = time.Hour
	DefaultIdleTimeoutUDP   = time.Minute
	DefaultHalfCloseTimeout = 5 * time.Minute
	DefaultMaxAgeGrace      = 30 * time.Second
	DefaultMaxSessions      = 65536
	DefaultConsulAddress    = "127.0.0.1:8500"
	DefaultMaxWatches       = 150
	DefaultFailoverBelow    = 1
	DefaultFailbackHold     = 30 * time.Second
	DefaultMaxDrop          = 50 // percent
	DefaultDropHold         = 10 * time.Second
	DefaultMaxFails         = 2
	DefaultMinAvailable     = 50
	DefaultMaxQueue         = 1024
	DefaultQueueTimeout     = 5 * time.Second
	DefaultCheckInterval    = 10 * time.Second
	DefaultCheckTimeout     = 2 * time.Second

	// AnyResponses stands for any number of responses, which is the default.
	AnyResponses = -1
)

// A Config is a whole configuration, defaulted and valid.
type Config struct {
	Consul   Consul
	LogLevel string // "trace", "debug", "info", "warn", "error", "off"
	LogJSON  bool

	// ShutdownGrace is how long connections in flight may go on after the first signal. Zero cuts them at once.
	ShutdownGrace time.Duration

	// UpgradeGrace is how long connections may go on in a process that another one has taken the place of. Zero: until they end.
	UpgradeGrace time.Duration

	// Engine is the way in which bytes are moved.
	Engine Engine

	// StateDir is a folder for what should outlast a restart: the last good endpoints. Empty: none.
	StateDir string
	Admin    Admin

	AccessLog *AccessLog // nil: there is none

	Services []Service // sorted by name
}

// Admin says where the admin API, the metrics and the page are, and for whom.
type Admin struct {
	Off       bool           // nothing of that
	Socket    string         // absolute path of a Unix socket; empty: the default one if TCP is not set either
	TCP       netip.AddrPort // zero: none
	TokenFile string
	Hosts     []string // lower case
}

// AccessLog says where a line for each TCP connection and UDP session goes.
type AccessLog struct {
	Path   string
	JSON   bool // else text
	Sample int  // one connection in so many
}

// Listeners returns how many listeners all services have together.
func (c *Config) Listeners() (n int) {
	for i := range c.Services {
		n += len(c.Services[i].Listen)
	}
	return n
}

// Consul says how to reach the Consul agent. Arguments left out were taken from Consul's usual environment variables.
type Consul struct {
	Address    string // "host:port", "http://host:port", "https://host:port" or "unix:///path"
	Token      Secret
	TokenFile  string
	HTTPAuth   Secret // "user:password", from CONSUL_HTTP_AUTH only
	Datacenter string // default of the services' watches; empty: the agent's own
	Namespace  string // Enterprise
	Partition  string // Enterprise
	Register   bool   // this Lictor as a service
	TLS        TLS

	// MaxWatches is how many queries may be under way at once, other than over https.
	MaxWatches int
}

// TLS is what an https:// address of Consul needs.
type TLS struct {
	CAFile, CAPath     string
	CertFile, KeyFile  string
	ServerName         string
	InsecureSkipVerify bool
}

// A Service is one service block.
type Service struct {
	Name     string
	Listen   []netip.AddrPort // at least one; port 0 lets the kernel choose
	Protocol Protocol
	Balance  Balance
	Sticky   time.Duration // how long a client that does not come back keeps its endpoint; zero: it has none

	MaxFails     int           // failures in a row that eject an endpoint; zero: none does
	MinAvailable int           // percentage of endpoints below which ejections are ignored; zero: they never are
	SlowStart    time.Duration // zero: endpoints come up at once

	MaxConnections            int           // of all endpoints together; zero: no limit
	MaxConnectionsPerEndpoint int           // zero: no limit
	MaxConnectionsPerClient   int           // connections, or sessions, of each client's address; zero: no limit
	MaxQueue                  int           // TCP
	QueueTimeout              time.Duration // TCP; zero: nobody waits

	Check *Check // nil: endpoints are not checked from here

	ConnectTimeout   time.Duration // TCP: for each endpoint tried; always above zero
	IdleTimeout      time.Duration // zero: no limit (TCP only)
	HalfCloseTimeout time.Duration // TCP: how long one direction may stay silent after the other ended; zero: no limit
	OnLeave          OnLeave       // TCP: what becomes of connections whose endpoint leaves
	MaxAge           time.Duration // TCP: after which connections end, give or take a tenth; zero: never
	MaxAgeGrace      time.Duration // TCP: how long a moment of quiet is waited for then
	MaxSessions      int           // UDP
	Responses        int           // UDP: to each of a client's datagrams; AnyResponses if nobody knows, zero if none
	Requests         int           // UDP: after so many another endpoint is picked; zero: never

	// Where the endpoints come from, in order of preference: Consul, each of Failover, Static. Consul or Static is set, and
	// Failover only with Consul.
	Consul   *ConsulQuery
	Failover []ConsulQuery
	Static   *Static

	// Zero if there is one source only.
	FailoverBelow int           // a source with fewer endpoints is left for the next one that has enough
	FailbackHold  time.Duration // how long an earlier source must have enough before it is used again; zero: not at all

	DeclRange hcl.Range // the block's header
}

// A Check says how endpoints are checked from here.
type Check struct {
	Interval time.Duration
	Timeout  time.Duration
	Send     string // UDP: the datagram
	Expect   string // UDP: what the answer must begin with
}

// A ConsulQuery says which instances in the Consul catalog are the service's endpoints.
type ConsulQuery struct {
	Service    string
	Tags       []string
	Filter     string
	Datacenter string
	Peer       string
	Prepared   string // name or ID of a prepared query, with which only Datacenter, Near and Statuses count
	Near       string
	Statuses   []string // of "passing" and "warning", the first at least

	MaxDrop  int           // percent of the set that may vanish at once without being held back
	DropHold time.Duration // how long what vanished is held; zero: not at all

	FilterRange hcl.Range // of the filter's text, for what Consul says of it; zero when there is none
}

// Static is a fixed list of endpoints.
type Static struct {
	Endpoints []StaticEndpoint
}

// A StaticEndpoint is an address to dial. Host is a host name or empty; then Addr is the whole address, else only its port counts.
type StaticEndpoint struct {
	Host string
	Addr netip.AddrPort
}
