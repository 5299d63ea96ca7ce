package consul

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// A Cluster identifies the catalog that an agent answers from.
type Cluster struct {
	TrustDomain string // the certificate authority's trust domain; empty if unknown, for example without Connect
	Datacenter  string // the agent's datacenter; empty if unknown
}

// noConnect is in Consul's answer, with the status 500, if Connect is disabled.
const noConnect = "Connect must be enabled"

var errNoAuthority = errors.New("the cluster has no certificate authority yet")

// Cluster returns the cluster that the agent answers from. Reading the trust domain needs no ACL right. With several
// datacenters, reading the agent's datacenter needs agent:read; without that right it stays unknown. If Cluster returns
// no error, a later call would not find more.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	var found Cluster
	s := c.at.Load()
	err := c.judge(ctx, s, func(ctx context.Context) (err error) {
		found, err = c.clusterOf(ctx, s)
		return err
	})
	return found, err
}

// clusterOf returns the cluster that s answers from, as Cluster does.
func (c *Client) clusterOf(ctx context.Context, s *site) (Cluster, error) {
	var found Cluster
	var roots struct{ TrustDomain string }
	err := c.callAt(ctx, s, http.MethodGet, "/v1/agent/connect/ca/roots", nil, nil, &roots)
	switch {
	case err == nil && roots.TrustDomain == "":
		return found, errNoAuthority
	case err != nil && !isFinal(err):
		return found, err
	}
	found.TrustDomain = roots.TrustDomain
	var datacenters []string
	err = c.callAt(ctx, s, http.MethodGet, "/v1/catalog/datacenters", nil, nil, &datacenters)
	switch {
	case err != nil && !isFinal(err):
		return found, err
	case len(datacenters) == 1:
		found.Datacenter = datacenters[0]
		return found, nil
	}
	var self struct{ Config struct{ Datacenter string } }
	err = c.callAt(ctx, s, http.MethodGet, "/v1/agent/self", nil, nil, &self)
	if err != nil && !isFinal(err) {
		return found, err
	}
	found.Datacenter = self.Config.Datacenter
	return found, nil
}

// isFinal reports whether a request that failed with err would fail again. Examples are: Connect is disabled, the token
// lacks a right, or a reverse proxy blocks the request.
func isFinal(err error) bool {
	var status *StatusError
	if !errors.As(err, &status) || KindOf(err) == Throttled {
		return false
	}
	return status.Code < 500 || KindOf(err) == Denied || strings.Contains(status.Text, noConnect)
}
