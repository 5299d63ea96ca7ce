// Package config turns HCL text into a typed, valid [Config] with all defaults, or reports all problems together:
//
//	cfg, diags := config.Load([]string{"/etc/lictor"}, config.Options{})
//	if diags.HasErrors() {
//		diags.WriteText(os.Stderr, false)
//	}
//
// Each problem is an [hcl.Diagnostic] that points to its line and says what to write instead. Of a file that is not
// valid HCL only the syntax errors are reported, because half a file would lead to misleading errors.
//
// Possible secrets are masked in the source lines that diagnostics show: see [Diagnostics]. The language has no
// variables, functions or includes. A configuration is plain values, merged from files and directories.
package config

import (
	"net/netip"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// Defaults of arguments that are not set.
const (
	DefaultShutdownGrace      = 10 * time.Second
	DefaultConnectTimeout     = time.Second
	DefaultAcceptProxyTimeout = 3 * time.Second
	DefaultHandshakeTimeout   = 10 * time.Second // of clients
	DefaultIdleTimeoutTCP     = time.Hour
	DefaultIdleTimeoutUDP     = time.Minute
	DefaultHalfCloseTimeout   = 5 * time.Minute
	DefaultMaxAgeGrace        = 30 * time.Second
	DefaultMaxSessions        = 65536
	DefaultConsulAddress      = "127.0.0.1:8500"
	DefaultMaxWatches         = 150
	DefaultFailoverBelow      = 1
	DefaultFailbackHold       = 30 * time.Second
	DefaultMaxDrop            = 50 // percent
	DefaultDropHold           = 10 * time.Second
	DefaultHoldMax            = time.Minute
	DefaultMaxFails           = 2
	DefaultMinAvailable       = 50
	DefaultMaxQueue           = 1024
	DefaultQueueTimeout       = 5 * time.Second
	DefaultEmptyWait          = 3 * time.Second
	DefaultCheckInterval      = 10 * time.Second
	DefaultCheckTimeout       = 2 * time.Second
	DefaultMaxSilence         = 30 * time.Second
	DefaultMeshFirstPort      = 21000
	DefaultMeshLastPort       = 21255
)

// A Config is a whole, valid configuration with all defaults.
//
// For a duration or count, zero means the default and Off disables the feature, as in the option structs of the
// packages that Lictor is made of. Load replaces zero by the default, unless the default is to have none. A field's
// tags zero and off say how these two values are written in HCL, in JSON and in the output of Compare.
type Config struct {
	Consul   Consul
	LogLevel string // "trace", "debug", "info", "warn", "error", "off"
	LogJSON  bool

	// ShutdownGrace is how long open connections may go on after the first signal. Off cuts them at once.
	ShutdownGrace time.Duration `off:"0s"`

	// UpgradeGrace is how long connections may go on in the old process after an upgrade. Zero means until they end.
	UpgradeGrace time.Duration `zero:"never"`

	// Engine is the engine that moves the bytes.
	Engine Engine

	// StateDir is a folder for state that should survive a restart: the last good endpoints. Empty means that no state
	// is kept.
	StateDir string

	// Region and Zone are where this host is. If both are empty, the agent's node says it.
	Region, Zone string

	// KernelPath is that of services that do not say it. KernelPathCgroup is the control group whose processes it is
	// for, with all groups inside; empty means all processes of the host.
	KernelPath       KernelPath
	KernelPathCgroup string

	Admin   Admin
	Metrics Metrics

	AccessLog *AccessLog // nil: no access log

	Services []Service // sorted by name

	// Mesh says where the services of Expose are served. It is set if there are any.
	Mesh   *MeshServer
	Expose []Expose // sorted by name
}

// Admin configures the admin API, the metrics and the page: where they listen and which clients may use them.
type Admin struct {
	Off       bool           // no API, metrics or page
	Socket    string         // absolute path of a Unix socket; empty: the default path, unless TCP is set
	TCP       netip.AddrPort // zero: no TCP listener
	TokenFile string
	Hosts     []string // lower case
}

// Metrics configures what /metrics shows.
type Metrics struct {
	Endpoints bool // each endpoint has series of its own
}

// AccessLog configures the access log, which has a line for each TCP connection and UDP session.
type AccessLog struct {
	Path   string
	JSON   bool // false: text
	Sample int  // log one connection of this many
}

// Listeners returns the number of listeners of all services together. A listener that services share counts once.
func (c *Config) Listeners() (n int) {
	type key struct {
		protocol Protocol
		at       Listener
	}
	seen := map[key]bool{}
	for i := range c.Services {
		for _, l := range c.Services[i].Listen {
			at := key{c.Services[i].Protocol, l}
			if isOwn := l.Path == "" && l.Addr.Port() == 0; isOwn || !seen[at] { // with port 0 the kernel chooses
				n++
			}
			seen[at] = true
		}
	}
	return n
}

// Consul says how to reach the Consul agent. Load takes arguments that are not set from Consul's usual environment
// variables.
type Consul struct {
	Address    Addresses
	Token      Secret
	TokenFile  string
	HTTPAuth   Secret // "user:password", from CONSUL_HTTP_AUTH only
	Datacenter string // default datacenter of the services' queries; empty: the agent's own
	Namespace  string // default namespace of the services' queries; Enterprise
	Partition  string // default partition of the services' queries; Enterprise
	Register   bool   // register this Lictor as a service
	TLS        TLS

	// MaxWatches is how many queries may be open at once over plain HTTP. It does not limit queries over HTTPS.
	MaxWatches int
}

// TLS configures connections over TLS: to Consul, or for the checks of a service.
type TLS struct {
	CAFile, CAPath     string
	CertFile, KeyFile  string
	ServerName         string
	InsecureSkipVerify bool
}

// A Service is one service block.
type Service struct {
	Name     string
	Listen   []Listener // at least one
	Protocol Protocol

	// SNI holds the server names of TLS clients that get this service at a listener that it shares. They are in lower
	// case, without a dot at the end. A service without names gets the clients that fit no name.
	SNI []string

	// Allow and Deny say which clients may come, by address. Without Allow all may come that are not in Deny. Prefixes
	// are masked, and IPv4-mapped ones are IPv4.
	Allow, Deny []netip.Prefix

	Balance Balance

	// Sticky is how long a client that is away keeps its endpoint. Zero disables stickiness.
	Sticky time.Duration

	// MaxFails is how many failures in a row eject an endpoint. Off disables ejection.
	MaxFails int `off:"never"`

	// MinAvailable is the percentage of endpoints below which ejections are ignored. Off means that they always count.
	MinAvailable int `off:"0"`

	// SlowStart is how long a new endpoint takes to reach its full share of clients. Zero gives it the full share at
	// once.
	SlowStart time.Duration

	// Limits of connections: to all endpoints together, to each endpoint, and from each client address. The last one
	// also limits UDP sessions. Zero means no limit.
	MaxConnections            int `zero:"never"`
	MaxConnectionsPerEndpoint int `zero:"never"`
	MaxConnectionsPerClient   int `zero:"never"`

	// MaxQueue is how many TCP connections may wait for a free slot, and QueueTimeout is how long each may wait. With
	// Off no connection waits for a slot.
	MaxQueue     int
	QueueTimeout time.Duration `off:"0s"`

	// EmptyWait is how long TCP connections wait for an endpoint after the service has lost its last one. With Off they
	// do not wait. For UDP it is zero.
	EmptyWait time.Duration `off:"0s"`

	// Prefer is what near instances share with this host: "zone", "region", "node", or "meta:" and a key of meta.
	// Empty means that no instance is preferred. PreferStrict keeps all clients near, even if that is not fair.
	Prefer       string
	PreferStrict bool

	Check *Check // nil: Lictor does not check endpoints itself

	AcceptProxy *AcceptProxy // nil: clients send no PROXY header
	SendProxy   ProxyVersion `zero:""`

	// SendProxyUDP says which datagrams have the header of SendProxy. It is zero unless the service is UDP and has
	// SendProxy.
	SendProxyUDP ProxyDatagrams `zero:""`

	TLS         *AcceptTLS   // nil: TLS is not spoken with clients
	EndpointTLS *EndpointTLS // nil: TLS is not spoken with endpoints

	// Mesh says how endpoints are reached through Consul's service mesh. A nil Mesh means that they are not. With Mesh,
	// there is one query, and its Statuses are nil if the discovery chain says which statuses count.
	Mesh *Mesh

	// Transparent makes connections to endpoints come from the client's address.
	Transparent bool

	// ConnectTimeout is the deadline for an endpoint to accept a TCP connection. It applies anew to each endpoint that
	// is tried.
	ConnectTimeout time.Duration

	// IdleTimeout ends a connection or session over which no bytes have moved for this long. Off, for TCP only,
	// disables that.
	IdleTimeout time.Duration `off:"never"`

	// HalfCloseTimeout is how long one direction of a TCP connection may be silent after the other has ended. Off means
	// without a limit.
	HalfCloseTimeout time.Duration `off:"never"`

	// OnLeave says what happens to TCP connections whose endpoint leaves.
	OnLeave OnLeave

	// MaxAge is the age at which TCP connections are ended, plus or minus a tenth. Zero means no limit.
	MaxAge time.Duration `zero:"never"`

	// MaxAgeGrace is how long Lictor waits for a quiet moment before it ends a connection that has reached MaxAge. With
	// Off it does not wait.
	MaxAgeGrace time.Duration `off:"0s"`

	MaxSessions int // UDP

	// Responses is how many datagrams answer one datagram of a UDP client. Zero means any number, Off means none.
	Responses int `zero:"never" off:"0"`

	// Requests is the number of datagrams after which a UDP client gets another endpoint. Zero means never.
	Requests int `zero:"never"`

	// Consul, Failover and Static are the sources of endpoints, in this order of preference. At least one of Consul and
	// Static is set. Failover is set only with Consul.
	Consul   *ConsulQuery
	Failover []ConsulQuery
	Static   *Static

	// FailoverOn says what makes the service leave a source. FailoverBelow is the least number of endpoints of a good
	// source. A source with fewer is left for the next source that has enough. FailbackHold is how long an earlier
	// source must be good before the service returns to it; Off returns at once. All three are zero for a service with
	// one source.
	FailoverOn    FailoverOn    `zero:""`
	FailoverBelow int           `zero:""`
	FailbackHold  time.Duration `off:"0s"`

	KernelPath KernelPath // whether the service asks for the kernel path; see Config.OffKernelPath

	DeclRange    hcl.Range // the block's header
	TimeoutRange hcl.Range // an idle_timeout or half_close_timeout that is set to a time; zero if neither is
}

// A Check says how Lictor itself checks endpoints.
type Check struct {
	Interval time.Duration
	Timeout  time.Duration
	Send     Secret `zero:""` // UDP: the datagram
	Expect   string // UDP: the beginning of a good answer

	// HTTP is the path that a check requests over HTTP, or empty for a check that connects or sends a datagram. Port is
	// the port of the check; zero is the endpoint's own port. MaxSilence is how long an endpoint may leave checks
	// unanswered; Off tolerates no unanswered check. TLS is for HTTPS; nil means plain HTTP. Without HTTP the other
	// three are zero.
	HTTP       string
	Port       int           `zero:""`
	MaxSilence time.Duration `off:"0s"`
	TLS        *TLS
}

// A ConsulQuery selects the instances in Consul that are the service's endpoints.
type ConsulQuery struct {
	Service       string
	Tags          []string
	Filter        string
	Datacenter    string
	Namespace     string // Enterprise; empty: that of Config.Consul
	Partition     string // Enterprise; empty: that of Config.Consul
	Peer          string
	PreparedQuery string // name or ID of a prepared query; it has its own service, tags and filter
	Near          string
	Port          string   // name of one of each instance's ports; empty: the default port
	Address       string   // name of a tagged address, such as "wan"; empty: the usual address
	Statuses      []string // some of "passing", "warning" and "critical", always "passing"; see Service.Mesh for nil

	// SocketPaths holds patterns for the paths of Unix sockets that may be endpoints. Empty means that none may.
	SocketPaths []string

	// MaxDrop is the percentage of the set that may vanish at once without being held; Off means 0 %. DropHold is how
	// long deregistered instances are held, and HoldMax is for instances that vanished for other reasons. Off means
	// that they are not held.
	MaxDrop  int           `off:"0"`
	DropHold time.Duration `off:"0s"`
	HoldMax  HoldMax

	FilterRange hcl.Range // the text of Filter, for Consul's complaints about it; zero without a filter
}

// HoldMax is how long Lictor holds instances that have vanished from Consul but can still be reached, by reason. Off
// means that they are not held.
type HoldMax struct {
	Critical  time.Duration `off:"0s"`
	Forgotten time.Duration `off:"0s"`
}

// Static is a fixed list of endpoints.
type Static struct {
	Endpoints []StaticEndpoint
}

// A StaticEndpoint is an address to dial. If Host is set, it is a host name and Addr has only the port. If Path is set,
// it is the absolute path of a Unix socket, and the other two are zero. If both are empty, Addr is the whole address.
type StaticEndpoint struct {
	Host string
	Path string
	Addr netip.AddrPort
}
