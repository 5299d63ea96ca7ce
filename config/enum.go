package config

import (
	"fmt"
	"slices"
)

// Protocol is the protocol of a service.
type Protocol int

// The protocols.
const (
	TCP Protocol = iota
	UDP
)

// Balance is the policy by which a service chooses endpoints.
type Balance int

// The policies.
const (
	RoundRobin Balance = iota
	LeastConnections
	RandomTwo
	SourceHash
)

// FailoverOn is the condition on which a service leaves a source of endpoints for another. It is zero for a service
// with one source.
type FailoverOn int

// The conditions for failover.
const (
	FailoverOnHealth FailoverOn = 1 + iota // too few endpoints, or all endpoints fail from here
	FailoverOnConsul                       // too few endpoints according to Consul
)

// Engine is the engine that moves the bytes.
type Engine int

// The engines.
const (
	EngineAuto     Engine = iota // the best engine for this system
	EnginePortable               // the engine that works on every system
)

func protocolNames() []string { return []string{"tcp", "udp"} }
func balanceNames() []string {
	return []string{"round_robin", "least_connections", "random_two", "source_hash"}
}
func engineNames() []string     { return []string{"auto", "portable"} }
func failoverOnNames() []string { return []string{"health", "consul"} }

// LogLevels returns the values of log_level, the most verbose first.
func LogLevels() []string { return []string{"trace", "debug", "info", "warn", "error", "off"} }

// String returns the protocol's name in the configuration.
func (p Protocol) String() string { return nameOf(int(p), protocolNames()) }

// String returns the policy's name in the configuration.
func (b Balance) String() string { return nameOf(int(b), balanceNames()) }

// String returns the condition's name in the configuration.
func (f FailoverOn) String() string { return nameOf(int(f)-1, failoverOnNames()) }

// String returns the engine's name in the configuration.
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

// parse sets v to the index of text in names. If text is not among them, it returns an error and leaves v unchanged.
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

// indexOf returns the index of text in names. Its error lists the names and suggests one.
func indexOf(text string, names []string) (int, error) {
	if i := slices.Index(names, text); i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("%q is not valid.%s Write %s", text, didYouMean(text, names), either(names))
}
