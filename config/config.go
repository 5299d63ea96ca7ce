// Package config turns HCL text into a typed, defaulted and valid [Config], or reports all of its problems at once:
//
//	cfg, diags := config.Load([]string{"/etc/lictor"}, config.Options{})
//	if diags.HasErrors() {
//		diags.WriteText(os.Stderr, false)
//	}
//
// Each problem is an [hcl.Diagnostic] that points to its line and says what to write instead. A file that is not HCL at
// all gets its syntax errors reported and nothing else, for what follows from a half-read file would be noise.
//
// What may be a secret is masked in the source lines that diagnostics show: see [Diagnostics]. There are no variables,
// functions or includes: a configuration is plain values, merged from files and directories.
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
	DefaultHoldMax          = time.Minute
	DefaultMaxFails         = 2
	DefaultMinAvailable     = 50
	DefaultMaxQueue         = 1024
	DefaultQueueTimeout     = 5 * time.Second
	DefaultEmptyWait        = 3 * time.Second
	DefaultCheckInterval    = 10 * time.Second
	DefaultCheckTimeout     = 2 * time.Second
	DefaultMaxSilence       = 30 * time.Second
)

// A Config is a whole configuration, defaulted and valid.
//
// In it, zero means the default of a duration or count, and Off turns that off, as in the options of the packages that
// take them. Load replaces zero by the default, unless the default is to have none. The tags zero and off of a field
// say how these two values are written in HCL, in JSON and in what Compare shows.
type Config struct {
	Consul   Consul
	LogLevel string // "trace", "debug", "info", "warn", "error", "off"
	LogJSON  bool

	// ShutdownGrace is how long connections in flight may go on after the first signal. Off cuts them at once.
	ShutdownGrace time.Duration `off:"0s"`

	// UpgradeGrace is how long connections may go on in a process after another process has taken its place. Zero means
	// until they end.
	UpgradeGrace time.Duration `zero:"never"`

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

// TLS is what connections over TLS need: to Consul, or for the checks of a service.
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

	// Sticky is how long a client that does not come back keeps its endpoint. Zero means that clients have none to
	// keep.
	Sticky time.Duration

	// MaxFails is how many failures in a row eject an endpoint. Off means that none do.
	MaxFails int `off:"never"`

	// MinAvailable is the percentage of endpoints below which ejections are ignored. Off means that they never are.
	MinAvailable int `off:"0"`

	// SlowStart is how long an endpoint takes to come up to its share. Zero means no time.
	SlowStart time.Duration

	// The limits of connections: to all endpoints together, to each endpoint, and of each client's address, which also
	// limits UDP sessions. Zero means no limit.
	MaxConnections            int `zero:"never"`
	MaxConnectionsPerEndpoint int `zero:"never"`
	MaxConnectionsPerClient   int `zero:"never"`

	// MaxQueue is how many TCP connections may wait, and QueueTimeout how long each may wait for room. Off means that
	// none waits for that.
	MaxQueue     int
	QueueTimeout time.Duration `off:"0s"`

	// EmptyWait is how long TCP connections wait for the first endpoint of a service that has lost its last one. Off
	// means that they do not wait. It is zero for UDP.
	EmptyWait time.Duration `off:"0s"`

	Check *Check // nil: endpoints are not checked from here

	// ConnectTimeout is how long each endpoint that is tried has to accept a TCP connection.
	ConnectTimeout time.Duration

	// IdleTimeout ends connections and sessions over which nothing moves for so long. Off, for TCP only, means that it
	// never does.
	IdleTimeout time.Duration `off:"never"`

	// HalfCloseTimeout is how long one direction of a TCP connection may be silent after the other has ended. Off means
	// for as long as it likes.
	HalfCloseTimeout time.Duration `off:"never"`

	// OnLeave is what becomes of TCP connections whose endpoint leaves.
	OnLeave OnLeave

	// MaxAge is the age at which TCP connections end, give or take a tenth. Zero means that they may have any age.
	MaxAge time.Duration `zero:"never"`

	// MaxAgeGrace is how long a moment of quiet is waited for then. Off means not at all.
	MaxAgeGrace time.Duration `off:"0s"`

	MaxSessions int // UDP

	// Responses is how many datagrams answer each of a UDP client's datagrams. Zero means any number, Off means none.
	Responses int `zero:"never" off:"0"`

	// Requests is after how many datagrams of a UDP client another endpoint is picked. Zero means never.
	Requests int `zero:"never"`

	// Where the endpoints come from, in order of preference: Consul, each of Failover, Static. Consul or Static is set,
	// and Failover only with Consul.
	Consul   *ConsulQuery
	Failover []ConsulQuery
	Static   *Static

	// FailoverOn says what makes the service leave a source. FailoverBelow is how many endpoints a source must have:
	// with fewer it is left for the next source that has enough. FailbackHold is how long an earlier source must be
	// good before it is used again; Off means not at all. All are zero for a service with one source.
	FailoverOn    FailoverOn    `zero:""`
	FailoverBelow int           `zero:""`
	FailbackHold  time.Duration `off:"0s"`

	DeclRange hcl.Range // the block's header
}

// A Check says how endpoints are checked from here.
type Check struct {
	Interval time.Duration
	Timeout  time.Duration
	Send     Secret `zero:""` // UDP: the datagram
	Expect   string // UDP: what the answer must begin with

	// HTTP is the path to ask for over HTTP, instead of connecting or sending a datagram; empty: none. Port is where,
	// zero is the endpoint's own port. MaxSilence is how long an endpoint may give no answer, Off means not at all.
	// TLS is for HTTPS, nil means that it is HTTP without TLS. Without HTTP they are zero.
	HTTP       string
	Port       int           `zero:""`
	MaxSilence time.Duration `off:"0s"`
	TLS        *TLS
}

// A ConsulQuery says which instances in the Consul catalog are the service's endpoints.
type ConsulQuery struct {
	Service       string
	Tags          []string
	Filter        string
	Datacenter    string
	Peer          string
	PreparedQuery string // name or ID of a prepared query, with which only Datacenter, Near and Statuses count
	Near          string
	Statuses      []string // of "passing", "warning" and "critical", the first at least

	// MaxDrop is the percentage of the set that may vanish at once without being held; Off means 0 %. DropHold is
	// how long what was deregistered is held; Off means not at all. HoldMax is for what vanished for other reasons.
	MaxDrop  int           `off:"0"`
	DropHold time.Duration `off:"0s"`
	HoldMax  HoldMax

	FilterRange hcl.Range // of the filter's text, for what Consul says of it; zero when there is none
}

// HoldMax is how long instances are held that have vanished from Consul but can be reached from here, for each reason.
// Off means not at all.
type HoldMax struct {
	Critical  time.Duration `off:"0s"`
	Forgotten time.Duration `off:"0s"`
}

// Static is a fixed list of endpoints.
type Static struct {
	Endpoints []StaticEndpoint
}

// A StaticEndpoint is an address to dial. Host is a host name or empty; then Addr is the whole address, else only its
// port counts.
type StaticEndpoint struct {
	Host string
	Addr netip.AddrPort
}
