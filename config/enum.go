package config

import (
	"fmt"
	"slices"
)

// Protocol is what a listener speaks.
type Protocol int

// The protocols.
const (
	TCP Protocol = iota
	UDP
)

// Balance is the policy by which endpoints are chosen.
type Balance int

// The policies.
const (
	RoundRobin Balance = iota
	LeastConnections
	RandomTwo
	SourceHash
)

// FailoverOn is what makes a service go from one source of endpoints to another. It is zero for a service with one.
type FailoverOn int

// What makes a service go to another source.
const (
	FailoverOnHealth FailoverOn = 1 + iota // too few endpoints, or all of them fail from here
	FailoverOnConsul                       // too few endpoints, by what Consul says
)

// Engine is the way in which bytes are moved.
type Engine int

// The engines.
const (
	EngineAuto     Engine = iota // the best for this system
	EnginePortable               // the one that works on every system
)

func protocolNames() []string { return []string{"tcp", "udp"} }
func balanceNames() []string {
	return []string{"round_robin", "least_connections", "random_two", "source_hash"}
}
func engineNames() []string     { return []string{"auto", "portable"} }
func failoverOnNames() []string { return []string{"health", "consul"} }

// LogLevels are the values of log_level, from the most to the least that is logged.
func LogLevels() []string { return []string{"trace", "debug", "info", "warn", "error", "off"} }

// String is the name of the protocol in the configuration.
func (p Protocol) String() string { return nameOf(int(p), protocolNames()) }

// String is the name of the policy in the configuration.
func (b Balance) String() string { return nameOf(int(b), balanceNames()) }

// String is the name of what makes a service go to another source, in the configuration.
func (f FailoverOn) String() string { return nameOf(int(f)-1, failoverOnNames()) }

// String is the name of the engine in the configuration.
func (e Engine) String() string { return nameOf(int(e), engineNames()) }

// UnmarshalText takes the names that String returns.
func (p *Protocol) UnmarshalText(text []byte) error { return parse(p, text, protocolNames()) }

// UnmarshalText takes the names that String returns.
func (b *Balance) UnmarshalText(text []byte) error { return parse(b, text, balanceNames()) }

// UnmarshalText takes the names that String returns.
func (f *FailoverOn) UnmarshalText(text []byte) error {
	i, err := indexOf(string(text), failoverOnNames())
	if err == nil {
		*f = FailoverOn(1 + i)
	}
	return err
}

// UnmarshalText takes the names that String returns.
func (e *Engine) UnmarshalText(text []byte) error { return parse(e, text, engineNames()) }

// parse sets v to the place of text in names, or leaves it alone.
func parse[V ~int](v *V, text []byte, names []string) error {
	i, err := indexOf(string(text), names)
	if err == nil {
		*v = V(i)
	}
	return err
}

func nameOf(i int, names []string) string {
	if i < 0 || i >= len(names) {
		return fmt.Sprintf("unknown (%d)", i)
	}
	return names[i]
}

// indexOf is the place of text in names; its error suggests and lists the names.
func indexOf(text string, names []string) (int, error) {
	if i := slices.Index(names, text); i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("%q is not valid.%s Write %s", text, didYouMean(text, names), either(names))
}
