package lb

import (
	"fmt"
	"slices"
	"time"
)

// Options say how the endpoints of one service are chosen. The zero value is the default of all.
type Options struct {
	// Network is what the service's endpoints are used by. What is learned of an address over one says nothing about
	// the other.
	Network Network

	// Policy is how the next endpoint is chosen.
	Policy Policy

	// Sticky keeps a client, by its IP address, with its endpoint until it has not come for so long. Zero means not.
	Sticky time.Duration

	// MaxFails is how many failures in a row eject an endpoint; that it refuses does so at once. Zero means 2.
	// Negative means that this service's failures eject nobody, and that it takes no notice of ejections.
	MaxFails int

	// MinAvailable is the percentage of the endpoints below which ejections are ignored: when so many seem dead, it
	// is more likely that the fault is here. Zero means 50, negative means that ejections always count.
	MinAvailable int

	// SlowStart is how long it takes a new endpoint, or one that was ejected, to come up to its full share. Zero
	// means not.
	SlowStart time.Duration

	// MaxConnections bounds the uses of all endpoints together, MaxPerEndpoint those of each; zero means no bound.
	MaxConnections int
	MaxPerEndpoint int

	// MaxQueue bounds how many clients wait when there is no room, and QueueTimeout how long each does. Zero means
	// that none does.
	MaxQueue     int
	QueueTimeout time.Duration
}

// Network is what endpoints are used by.
type Network int

// The networks.
const (
	TCP Network = iota
	UDP
)

// Policy is a way to choose the next endpoint.
type Policy int

// The policies.
const (
	// PolicyRoundRobin gives every endpoint its turn, see rotation.
	PolicyRoundRobin Policy = iota

	// PolicyLeastConnections takes the endpoint with the fewest open uses for its weight; ties rotate by weight.
	PolicyLeastConnections

	// PolicyRandomTwo draws two endpoints, by weight, and takes the one with fewer open uses for its weight.
	PolicyRandomTwo

	// PolicySourceHash gives all connections from one IP address to the same endpoint, as long as that is there.
	PolicySourceHash
)

func policyNames() []string {
	return []string{"round_robin", "least_connections", "random_two", "source_hash"}
}

// String is the name of the policy, as in "round_robin".
func (p Policy) String() string {
	if p < 0 || int(p) >= len(policyNames()) {
		return fmt.Sprintf("policy(%d)", int(p))
	}
	return policyNames()[p]
}

// UnmarshalText takes the names that String returns.
func (p *Policy) UnmarshalText(text []byte) error {
	i := slices.Index(policyNames(), string(text))
	if i < 0 {
		return fmt.Errorf("no policy %q", text)
	}
	*p = Policy(i)
	return nil
}

func (o *Options) maxFails() int {
	if o.MaxFails == 0 {
		return 2
	}
	return o.MaxFails
}

// panics tells whether ejections are to be ignored if so many of all endpoints are ejected.
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
