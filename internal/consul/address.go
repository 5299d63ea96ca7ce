package consul

import (
	"fmt"

	"github.com/lictor-proxy/lictor/internal/hostport"
)

// Local reports whether an address, in a form that Options.Address accepts, is certainly on this host. Local returns
// false for an address that cannot be parsed.
func Local(address string) bool {
	a, err := hostport.ParseAgent(address)
	return err == nil && a.Local()
}

// parseAddress parses an address in a form that Options.Address lists. The errors of parseAddress never repeat a
// password.
func parseAddress(address string) (hostport.Agent, error) {
	a, err := hostport.ParseAgent(address)
	if err != nil {
		return a, fmt.Errorf("consul address: %w", err)
	}
	return a, nil
}
