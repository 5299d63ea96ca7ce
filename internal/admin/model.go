package admin

import (
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/healthcheck"
	"github.com/lictor-proxy/lictor/proxy"
)

// The types in this file are the JSON of the API. docs/api.md describes each field, and a test compares both.

// A Service shows one service at one moment.
type Service struct {
	Name      string   `json:"name"`
	Protocol  string   `json:"protocol"`
	Source    string   `json:"source"`
	Listeners []string `json:"listeners"`

	State   string   `json:"state"`
	Reasons []Reason `json:"reasons,omitempty"` // why the state is not StateFine, most serious first

	// RefusedRate is the number of clients refused a second, averaged over the last ten seconds. RefusedRateBy has the
	// same by proxy.Refusal, without zeros.
	RefusedRate   float64            `json:"refused_rate"`
	RefusedRateBy map[string]float64 `json:"refused_rate_by,omitempty"`

	Set         string     `json:"set"`
	Problem     string     `json:"problem,omitempty"`
	StaleSince  *time.Time `json:"stale_since,omitempty"`
	LastSuccess *time.Time `json:"last_success,omitempty"`
	LastChange  *time.Time `json:"last_change,omitempty"`

	Endpoints []Endpoint `json:"endpoints"`
	Counters  Counters   `json:"counters"`

	Descriptors Descriptors `json:"descriptors"`

	Waiting   int64 `json:"waiting,omitempty"`
	Panicking bool  `json:"panicking,omitempty"`

	EmptyUntil *time.Time `json:"empty_until,omitempty"`
	Sources    []Source   `json:"sources,omitempty"`

	Certificates []Certificate `json:"certificates,omitempty"`
	Near         *Near         `json:"near,omitempty"` // nil: the service prefers no endpoints

	Permissive bool `json:"permissive,omitempty"` // clients without a certificate of the mesh are served too

	// Identity is that with which endpoints are dialled, or which is shown to the clients of an exposed instance. A nil
	// Identity means that there is none. Exposed is nil unless the service is an instance of this host that is served
	// to the mesh.
	Identity *Identity        `json:"identity,omitempty"`
	Exposed  *ExposedInstance `json:"exposed,omitempty"`

	Path   Path            `json:"path"`
	Kernel *KernelCounters `json:"kernel,omitempty"` // nil: the service was never on the kernel path

	stats        proxy.Stats // the counters that Counters was made of
	drainedSince time.Time   // when the oldest drain without an end began; zero if there is none
}

// A Source is one of several sources of a service's endpoints.
type Source struct {
	Name   string `json:"name"`
	Active bool   `json:"active"`
	Detail string `json:"detail,omitempty"`
}

// The states of a service's set.
const (
	SetNone  = "none"  // no endpoints are known yet
	SetSaved = "saved" // known from an earlier run, and not confirmed since the start
	SetFresh = "fresh" // confirmed by the source since the start
)

// In returns the number of endpoints that get clients.
func (s *Service) In() int {
	n := 0
	for i := range s.Endpoints {
		if s.Endpoints[i].State == StateIn {
			n++
		}
	}
	return n
}

// An Endpoint shows one known instance, and why it gets clients or does not.
type Endpoint struct {
	ID      string     `json:"id"`
	Address string     `json:"address"`
	Weight  int        `json:"weight"`
	Tags    []string   `json:"tags,omitempty"`
	State   string     `json:"state"`
	Reason  string     `json:"reason"`
	Detail  string     `json:"detail,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	Until   *time.Time `json:"until,omitempty"`

	// ServerName is the name that the registration gives for the instance's certificate. NoServerName says why there is
	// none although the service asks for one.
	ServerName   string `json:"server_name,omitempty"`
	NoServerName string `json:"no_server_name,omitempty"`

	Identity string `json:"identity,omitempty"` // who the endpoint must be in the mesh: the path of a SPIFFE ID

	Zone string `json:"zone,omitempty"` // what the service's preference looks at
	Near bool   `json:"near,omitempty"` // the zone is that of this host

	DrainedBy   string `json:"drained_by,omitempty"`
	DrainReason string `json:"drain_reason,omitempty"`

	// Denied counts connections that the endpoint has denied, and Unanswered those that it has ended before it sent
	// anything. Both are nil once it has answered a connection, and for services whose endpoints do not deny.
	Denied     *Unserved `json:"denied,omitempty"`
	Unanswered *Unserved `json:"unanswered,omitempty"`

	Name     *HostName         `json:"name,omitempty"` // if the endpoint has a host name, and lookups found something
	Counters *EndpointCounters `json:"counters,omitempty"`
}

// An Unserved shows how many connections an endpoint has not served since it last answered one, and why.
type Unserved struct {
	Connections int64     `json:"connections"`
	Since       time.Time `json:"since"`
	Last        time.Time `json:"last"`
	Why         string    `json:"why,omitempty"` // about the last one
}

// A HostName shows what is known of an endpoint's host name.
type HostName struct {
	Addresses []string `json:"addresses"`

	// Problem says why lookups fail now. FoundAt is when the addresses were found; it is nil if another process found
	// them.
	Problem string     `json:"problem,omitempty"`
	FoundAt *time.Time `json:"found_at,omitempty"`
}

// The states of an endpoint.
const (
	StateIn  = "in"
	StateOut = "out"
)

// The reasons for StateIn.
const (
	ReasonHealthy   = "healthy"
	ReasonHeld      = "held"       // the source does not report the endpoint any more, but Lictor keeps it for a while
	ReasonSaved     = "saved"      // known from an earlier run, and not confirmed yet
	ReasonSlowStart = "slow_start" // the endpoint's share rises slowly to its full value
	ReasonTroubled  = "troubled"   // attempts to reach the endpoint have failed since the last success
)

// The reasons for StateOut.
const (
	ReasonDrained     = "drained"          // an operator drained the endpoint
	ReasonStandby     = "standby"          // the source is not in use, because a preferred one has enough endpoints
	ReasonStatus      = "status"           // a health check of the instance or of its node
	ReasonMaintenance = "maintenance"      // the instance or its node is in maintenance
	ReasonAddress     = "address"          // the instance has no address that can be dialled
	ReasonPort        = "port"             // the instance has no port of the name that the service asks for
	ReasonID          = "id"               // the names of the instance and its node are too long
	ReasonDuplicate   = "duplicate"        // another instance has the same address
	ReasonTags        = "tags"             // the instance lacks a tag that the service asks for
	ReasonFilter      = "filter"           // the instance does not match the service's filter
	ReasonMesh        = "mesh"             // the instance is not in the mesh, and the service asks for the mesh
	ReasonWeight      = "weight"           // the instance's weight says that it gets no traffic
	ReasonEjected     = "ejected"          // attempts to reach the endpoint failed
	ReasonTrial       = "trial"            // the endpoint was ejected, and one client tries it
	ReasonFull        = "full"             // the endpoint has its maximum of clients
	ReasonCheck       = healthcheck.Reason // the service's HTTP check fails, or was not made yet
	ReasonLoop        = cycles.Loop        // the endpoint leads back to this Lictor
)

// EndpointCounters are the counters of one endpoint, since Lictor knows the endpoint.
type EndpointCounters struct {
	Active      int64 `json:"active"`
	Picks       int64 `json:"picks"`
	DialsFailed int64 `json:"dials_failed"`

	// Dials are the successful dials of TCP connections, and DialSeconds is how long they took in total.
	Dials       int64   `json:"dials"`
	DialSeconds float64 `json:"dial_seconds"`
}

// Descriptors shows file descriptors for a service's clients: Taken is in use now, Floor is guaranteed, Ceiling is the
// maximum.
type Descriptors struct {
	Taken   int64 `json:"taken"`
	Floor   int64 `json:"floor"`
	Ceiling int64 `json:"ceiling"`
}

// Counters are the counters of one service, since Lictor knows the service. Up is the direction from client to
// instance.
type Counters struct {
	Connections       int64 `json:"connections"`
	ConnectionsActive int64 `json:"connections_active"`
	EndedLeft         int64 `json:"ended_left"`
	EndedAged         int64 `json:"ended_aged"`
	EndedIntention    int64 `json:"ended_intention"`
	DialsFailed       int64 `json:"dials_failed"`
	Retries           int64 `json:"retries"`
	Ejections         int64 `json:"ejections"`
	Refused           int64 `json:"refused"`
	DescriptorWaits   int64 `json:"descriptor_waits"`
	BytesUp           int64 `json:"bytes_up"`
	BytesDown         int64 `json:"bytes_down"`
	Sessions          int64 `json:"sessions"`
	SessionsActive    int64 `json:"sessions_active"`
	SessionsEvicted   int64 `json:"sessions_evicted"`
	DatagramsUp       int64 `json:"datagrams_up"`
	DatagramsDown     int64 `json:"datagrams_down"`
	DatagramsDropped  int64 `json:"datagrams_dropped"`
	DatagramsOverrun  int64 `json:"datagrams_overrun"` // dropped by the kernel at the listener

	RefusedBy map[string]int64 `json:"refused_by,omitempty"` // Refused by proxy.Refusal, without zeros

	Dials       int64   `json:"dials"`
	DialSeconds float64 `json:"dial_seconds"`
}

// Status shows the process as a whole.
type Status struct {
	State   string   `json:"state"`             // the most serious state of a service, or StateDegraded
	Reasons []Reason `json:"reasons,omitempty"` // why the state is not StateFine, most serious first

	Host     string    `json:"host"`
	Version  string    `json:"version"`
	Revision string    `json:"revision"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	Now      time.Time `json:"now"`
	Ready    bool      `json:"ready"`
	NotReady []string  `json:"not_ready,omitempty"`
	LogLevel string    `json:"log_level"`

	CommandLine []string `json:"command_line,omitempty"`

	Services     int `json:"services"`
	Refusing     int `json:"refusing"` // services in StateRefusing
	Degraded     int `json:"degraded"` // services in StateDegraded
	Stale        int `json:"stale"`
	EndpointsIn  int `json:"endpoints_in"`
	EndpointsOut int `json:"endpoints_out"`

	ConnectionsActive int64 `json:"connections_active"`
	SessionsActive    int64 `json:"sessions_active"`

	Consul *Consul `json:"consul,omitempty"` // nil if nothing uses Consul

	LastReload *Reload `json:"last_reload,omitempty"`

	Pending []Pending `json:"pending,omitempty"`

	Denied []Denied `json:"denied,omitempty"`
}

// A Consul shows at which of the addresses of Consul Lictor is.
type Consul struct {
	Address   string    `json:"address"`        // with the IP address of a host name, if it is known
	Since     time.Time `json:"since"`          // when Lictor began to use the address
	Moves     uint64    `json:"moves"`          // how often Lictor has moved to another address
	From      string    `json:"from,omitempty"` // the address before; empty if Lictor has never moved
	Why       string    `json:"why,omitempty"`  // why Lictor moved
	Addresses []string  `json:"addresses"`      // all addresses, in the order of the configuration
}

// A Pending is a changed argument of the configuration that takes effect only after a restart or an upgrade. The values
// are written as in a configuration. An empty value means that the argument is not set.
type Pending struct {
	Argument   string `json:"argument"`
	InForce    string `json:"in_force"`
	Configured string `json:"configured"`
}

// A Denied is a system call or a socket option that the system does not allow the process to use.
type Denied struct {
	Call    string `json:"call"`
	Error   string `json:"error"`
	Instead string `json:"instead"`
}

// A Reload describes the outcome of a reload.
type Reload struct {
	Time    time.Time `json:"time"`
	OK      bool      `json:"ok"`
	Summary string    `json:"summary,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// An Event is something that happened, such as a reload or an ejection.
type Event struct {
	Seq      uint64         `json:"seq"`
	Time     time.Time      `json:"time"`
	Kind     endpoints.Kind `json:"kind"`
	Service  string         `json:"service,omitempty"`
	Services int            `json:"services,omitempty"` // number of services, if the event concerns several
	Endpoint string         `json:"endpoint,omitempty"`
	Text     string         `json:"text"`
}

// eventsOf converts events to those of the API.
func eventsOf(events []endpoints.Event) []Event {
	out := make([]Event, len(events))
	for i, e := range events {
		out[i] = Event{
			Seq: e.Seq, Time: e.Time, Kind: e.Kind, Service: e.Service, Services: len(e.Services),
			Endpoint: e.Endpoint, Text: e.Text,
		}
	}
	return out
}
