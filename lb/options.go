package lb

import (
	"fmt"
	"slices"
	"time"
)

// Options say how the endpoints of one service are chosen. Each field's zero value is its default.
type Options struct {
	// Network is the network that the endpoints are reached over. Health is kept apart for TCP and UDP: a failure over
	// one says nothing about the other.
	Network Network

	// Policy is how the next endpoint is chosen.
	Policy Policy

	// Sticky is how long a client, known by its IP address, keeps its endpoint after its last pick. Zero disables
	// stickiness.
	Sticky time.Duration

	// MaxFails is how many failures in a row eject an endpoint. A refused connection ejects it at once. Zero means 2.
	// Negative means that this service's failures eject no endpoint, and that its picks ignore ejections.
	MaxFails int

	// MinAvailable is a percentage: if fewer of the endpoints than that are not ejected, picks ignore ejections. When
	// so many seem dead, the fault is more likely on this host. Zero means 50. Negative means that picks never ignore
	// ejections.
	MinAvailable int

	// SlowStart is how long a new endpoint, or one that was ejected, takes to reach its full share. Zero disables slow
	// start.
	SlowStart time.Duration

	// MaxConnections bounds the open uses of the service, MaxPerEndpoint those of each endpoint. Zero means no bound.
	MaxConnections int
	MaxPerEndpoint int

	// MaxQueue bounds how many clients wait, and QueueTimeout how long each waits for room. Zero means that none does.
	MaxQueue     int
	QueueTimeout time.Duration

	// EmptyWait is how long clients wait in the queue for the first endpoint of a service that has lost its last one.
	// It counts from that moment, not for each client. Zero means that they do not wait.
	EmptyWait time.Duration
}

// Network is the network that endpoints are reached over.
type Network int

// The networks.
const (
	TCP Network = iota
	UDP
)

// String returns the name that package net has for the network.
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
	// PolicyRoundRobin gives each endpoint its turn, in proportion to its weight.
	PolicyRoundRobin Policy = iota

	// PolicyLeastConnections takes the endpoint with the fewest open uses per weight. Ties rotate by weight.
	PolicyLeastConnections

	// PolicyRandomTwo draws two endpoints by weight, and takes the one with fewer open uses per weight.
	PolicyRandomTwo

	// PolicySourceHash sends all connections of one IP address to the same endpoint, while that endpoint is there.
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

// UnmarshalText accepts the names that String returns.
func (p *Policy) UnmarshalText(text []byte) error {
	i := slices.Index(policyNames(), string(text))
	if i < 0 {
		return fmt.Errorf("no policy %q", text)
	}
	*p = Policy(i)
	return nil
}

// maxFails returns MaxFails or its default.
func (o *Options) maxFails() int {
	if o.MaxFails == 0 {
		return 2
	}
	return o.MaxFails
}

// panics reports whether picks ignore ejections when ejected of all endpoints are ejected.
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
