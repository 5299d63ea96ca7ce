package consul

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// A Cluster tells whose catalog an agent answers from.
type Cluster struct {
	TrustDomain string // of the cluster's certificate authority; empty: unknown, as where Connect is disabled
	Datacenter  string // the agent's; empty: unknown
}

// noConnect is what Consul answers, with the status 500, where Connect is disabled.
const noConnect = "Connect must be enabled"

var errNoAuthority = errors.New("the cluster has no certificate authority yet")

// Cluster returns whose catalog the agent answers from. The trust domain needs no right. The datacenter needs
// agent:read if there are several; without that right it stays unknown. The error is nil if a later call
// would tell no more.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	var found Cluster
	var roots struct{ TrustDomain string }
	err := c.Call(ctx, http.MethodGet, "/v1/agent/connect/ca/roots", nil, nil, &roots)
	switch {
	case err == nil && roots.TrustDomain == "":
		return found, errNoAuthority
	case err != nil && !isFinal(err):
		return found, err
	}
	found.TrustDomain = roots.TrustDomain
	var datacenters []string
	err = c.Call(ctx, http.MethodGet, "/v1/catalog/datacenters", nil, nil, &datacenters)
	switch {
	case err != nil && !isFinal(err):
		return found, err
	case len(datacenters) == 1:
		found.Datacenter = datacenters[0]
		return found, nil
	}
	var self struct{ Config struct{ Datacenter string } }
	err = c.Call(ctx, http.MethodGet, "/v1/agent/self", nil, nil, &self)
	if err != nil && !isFinal(err) {
		return found, err
	}
	found.Datacenter = self.Config.Datacenter
	return found, nil
}

// isFinal reports whether a request that failed with err would fail again: Connect is disabled, a right is missing, or
// a reverse proxy does not let the request through.
func isFinal(err error) bool {
	var status *StatusError
	if !errors.As(err, &status) || KindOf(err) == Throttled {
		return false
	}
	return status.Code < 500 || KindOf(err) == Denied || strings.Contains(status.Text, noConnect)
}
