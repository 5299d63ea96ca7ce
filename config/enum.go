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
)

func protocolNames() []string { return []string{"tcp", "udp"} }
func balanceNames() []string  { return []string{"round_robin"} }

// LogLevels are the values of log_level, from the most to the least that is logged.
func LogLevels() []string { return []string{"trace", "debug", "info", "warn", "error", "off"} }

// String is the name of the protocol in the configuration.
func (p Protocol) String() string { return nameOf(int(p), protocolNames()) }

// String is the name of the policy in the configuration.
func (b Balance) String() string { return nameOf(int(b), balanceNames()) }

// UnmarshalText takes the names that String returns.
func (p *Protocol) UnmarshalText(text []byte) error {
	i, err := indexOf(string(text), protocolNames())
	if err == nil {
		*p = Protocol(i)
	}
	return err
}

// UnmarshalText takes the names that String returns.
func (b *Balance) UnmarshalText(text []byte) error {
	i, err := indexOf(string(text), balanceNames())
	if err == nil {
		*b = Balance(i)
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
