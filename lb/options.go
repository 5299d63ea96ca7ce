package lb

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// Options say how the load balancer picks from the endpoints of one service. The zero value of each field is its
// default.
type Options struct {
	// Network is the network over which the endpoints are reached. The balancer keeps separate health for TCP and UDP,
	// because a TCP failure says nothing about UDP.
	Network Network

	// ProbeHeader is the version of the PROXY header that a check sends. Endpoints that get a header from clients
	// expect one from checks too. Over UDP the header is in the check's datagram, and only of version 2.
	ProbeHeader proxyproto.Version

	// ProbeTLS, unless it is nil, makes a check over TCP shake hands with the endpoint. Only the same pointer is the
	// same ProbeTLS.
	ProbeTLS *ProbeTLS

	// Policy is the way to choose the next endpoint.
	Policy Policy

	// Prefer says whether clients prefer near endpoints.
	Prefer Preference

	// Sticky is how long a client keeps its endpoint after its last pick. Clients are told apart by IP address. A zero
	// Sticky disables stickiness.
	Sticky time.Duration

	// MaxFails is how many failures in a row eject an endpoint. A refused connection ejects the endpoint at once. If
	// MaxFails is zero, the limit is 2. If MaxFails is negative, failures in this service eject no endpoint, and its
	// picks ignore ejections.
	MaxFails int

	// MinAvailable is the percentage of endpoints that must not be ejected. Below that percentage, picks ignore
	// ejections: when so many endpoints seem dead, the fault is more likely on this host. If MinAvailable is zero, the
	// limit is 50 percent. If MinAvailable is negative, picks never ignore ejections.
	MinAvailable int

	// SlowStart is how long an endpoint takes to reach its full share of traffic after it joins or after an ejection. A
	// zero SlowStart disables slow start.
	SlowStart time.Duration

	// MaxConnections limits the open uses of the whole service. MaxPerEndpoint limits the open uses of each endpoint.
	// If a field is zero, it sets no limit.
	MaxConnections int
	MaxPerEndpoint int

	// MaxQueue limits how many clients may wait in the queue. QueueTimeout limits how long each client waits. If either
	// is zero, no client waits for a free connection.
	MaxQueue     int
	QueueTimeout time.Duration

	// EmptyWait is how long clients wait in the queue after the service has lost its last endpoint. The time counts
	// from that loss, and is not restarted for each client. A zero EmptyWait means that clients do not wait for the
	// first new endpoint.
	EmptyWait time.Duration
}

// A ProbeTLS says how a check speaks TLS with endpoints.
type ProbeTLS struct {
	// Config returns the configuration for the next handshake with e, which must verify e. Any goroutine may call it.
	Config func(e Endpoint) (*tls.Config, error)

	// HeaderInside says that ProbeHeader is the first thing inside TLS. Otherwise it goes ahead of the handshake.
	HeaderInside bool

	// Denies says that the endpoints decide by the certificate of Config whether they serve it. A check that an
	// endpoint denies neither fails nor succeeds, see Member.Denied. To hear of it, each check waits until the
	// endpoint sends something or ends the connection, or until the check's time is over.
	Denies bool
}

// Network is the network over which endpoints are reached: TCP or UDP.
type Network int

// The networks.
const (
	TCP Network = iota
	UDP
)

// String returns the network name that package net uses: "tcp" or "udp".
func (n Network) String() string {
	if n == UDP {
		return "udp"
	}
	return "tcp"
}

// Policy is a way to choose the next endpoint.
type Policy int

// The policies.
const (
	// PolicyRoundRobin gives the endpoints turns in proportion to their weights.
	PolicyRoundRobin Policy = iota

	// PolicyLeastConnections picks the endpoint with the fewest open uses per unit of weight. Endpoints with equal
	// counts take turns by weight.
	PolicyLeastConnections

	// PolicyRandomTwo draws two endpoints at random by weight, and picks the one with fewer open uses per unit of
	// weight.
	PolicyRandomTwo

	// PolicySourceHash sends all connections of one client IP address to the same endpoint, as long as that endpoint is
	// available.
	PolicySourceHash
)

func policyNames() []string {
	return []string{"round_robin", "least_connections", "random_two", "source_hash"}
}

// String returns the name of the policy, such as "round_robin".
func (p Policy) String() string {
	if p < 0 || int(p) >= len(policyNames()) {
		return fmt.Sprintf("policy(%d)", int(p))
	}
	return policyNames()[p]
}

// UnmarshalText sets the policy from one of the names that String returns.
func (p *Policy) UnmarshalText(text []byte) error {
	i := slices.Index(policyNames(), string(text))
	if i < 0 {
		return fmt.Errorf("unknown policy %q", text)
	}
	*p = Policy(i)
	return nil
}

// maxFails returns MaxFails, or the default if MaxFails is zero.
func (o *Options) maxFails() int {
	if o.MaxFails == 0 {
		return 2
	}
	return o.MaxFails
}

// panics reports whether picks ignore ejections. ejected is the number of ejected endpoints, out of all endpoints.
func (o *Options) panics(ejected, all int) bool {
	if o.MaxFails < 0 {
		return true
	}
	least := o.MinAvailable
	if least == 0 {
		least = 50
	}
	return (all-ejected)*100 < least*all
}
