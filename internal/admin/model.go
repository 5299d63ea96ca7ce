package admin

import (
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/healthcheck"
)

// What the API shows, as it shows it. docs/api.md describes each field, and a test holds it to that.

// A Service is one service at one moment.
type Service struct {
	Name      string   `json:"name"`
	Protocol  string   `json:"protocol"`
	Source    string   `json:"source"`
	Listeners []string `json:"listeners"`

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
}

// A Source is one of several places that the endpoints of a service come from.
type Source struct {
	Name   string `json:"name"`
	Active bool   `json:"active"`
	Detail string `json:"detail,omitempty"`
}

// What a service's set is.
const (
	SetNone  = "none"  // nothing is known yet
	SetSaved = "saved" // known from before, not confirmed since the start
	SetFresh = "fresh" // confirmed by its source since the start
)

// In counts the endpoints that get clients.
func (s *Service) In() int {
	n := 0
	for i := range s.Endpoints {
		if s.Endpoints[i].State == StateIn {
			n++
		}
	}
	return n
}

// An Endpoint is one instance that is known, and why it gets clients or does not.
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

	Name     *HostName         `json:"name,omitempty"` // of an endpoint with a host name that is known
	Counters *EndpointCounters `json:"counters,omitempty"`
}

// A HostName is what is known of the host name of an endpoint.
type HostName struct {
	Addresses []string `json:"addresses"`

	// While lookups fail: why, and when the addresses were found. FoundAt is nil if another process has found them.
	Problem string     `json:"problem,omitempty"`
	FoundAt *time.Time `json:"found_at,omitempty"`
}

// The states of an endpoint.
const (
	StateIn  = "in"
	StateOut = "out"
)

// The reasons for a state. In:
const (
	ReasonHealthy   = "healthy"
	ReasonHeld      = "held"       // its source does not name it any more, but it is kept for a while
	ReasonSaved     = "saved"      // known from before the start, not confirmed yet
	ReasonSlowStart = "slow_start" // it comes up to its share by and by
	ReasonTroubled  = "troubled"   // it has failed since it was last reached
)

// Out:
const (
	ReasonDrained     = "drained"          // an operator's wish
	ReasonStandby     = "standby"          // its place is not in use, for another that is preferred has enough
	ReasonStatus      = "status"           // a check of it or of its node
	ReasonMaintenance = "maintenance"      // it or its node
	ReasonAddress     = "address"          // it has none that could be dialled
	ReasonID          = "id"               // its name and its node's are too long
	ReasonDuplicate   = "duplicate"        // another instance has its address
	ReasonTags        = "tags"             // it does not have those that are asked for
	ReasonFilter      = "filter"           // it does not pass it
	ReasonWeight      = "weight"           // it is to get no traffic
	ReasonEjected     = "ejected"          // it failed from here
	ReasonTrial       = "trial"            // it was ejected, and one client tries it
	ReasonFull        = "full"             // it has as many clients as it may
	ReasonCheck       = healthcheck.Reason // the service's check over HTTP fails, or has not been made yet
	ReasonLoop        = cycles.Loop        // it leads back to this Lictor
)

// EndpointCounters are of one endpoint, since it is known.
type EndpointCounters struct {
	Active      int64 `json:"active"`
	Picks       int64 `json:"picks"`
	DialsFailed int64 `json:"dials_failed"`
}

// Descriptors is how many file descriptors a service has for its clients now, can always have, and can have at most.
type Descriptors struct {
	Taken   int64 `json:"taken"`
	Floor   int64 `json:"floor"`
	Ceiling int64 `json:"ceiling"`
}

// Counters are of one service, since Lictor knows it. Up is from client to instance.
type Counters struct {
	Connections       int64 `json:"connections"`
	ConnectionsActive int64 `json:"connections_active"`
	EndedLeft         int64 `json:"ended_left"`
	EndedAged         int64 `json:"ended_aged"`
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
	DatagramsOverrun  int64 `json:"datagrams_overrun"` // by the kernel

	RefusedBy map[string]int64 `json:"refused_by,omitempty"` // Refused by proxy.Refusal, without those that are none

	Dials       int64   `json:"dials"`
	DialSeconds float64 `json:"dial_seconds"`
}

// Status is what there is to say of the process as a whole.
type Status struct {
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
	Stale        int `json:"stale"`
	EndpointsIn  int `json:"endpoints_in"`
	EndpointsOut int `json:"endpoints_out"`

	ConnectionsActive int64 `json:"connections_active"`
	SessionsActive    int64 `json:"sessions_active"`

	LastReload *Reload `json:"last_reload,omitempty"`

	Pending []Pending `json:"pending,omitempty"`

	Denied []Denied `json:"denied,omitempty"`
}

// A Pending is a change of an argument of the configuration that is in force after a restart or an upgrade only. Values
// are as in a configuration. An empty value is not set.
type Pending struct {
	Argument   string `json:"argument"`
	InForce    string `json:"in_force"`
	Configured string `json:"configured"`
}

// A Denied is a system call or a socket option that the system denies the process.
type Denied struct {
	Call    string `json:"call"`
	Error   string `json:"error"`
	Instead string `json:"instead"`
}

// A Reload is how a reload ended.
type Reload struct {
	Time    time.Time `json:"time"`
	OK      bool      `json:"ok"`
	Summary string    `json:"summary,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// An Event is something that happened.
type Event struct {
	Seq      uint64         `json:"seq"`
	Time     time.Time      `json:"time"`
	Kind     endpoints.Kind `json:"kind"`
	Service  string         `json:"service,omitempty"`
	Endpoint string         `json:"endpoint,omitempty"`
	Text     string         `json:"text"`
}

// eventsOf returns events as the API shows them.
func eventsOf(events []endpoints.Event) []Event {
	out := make([]Event, len(events))
	for i, e := range events {
		out[i] = Event(e)
	}
	return out
}
