package consul

import (
	"context"
	"net/http"
	"net/url"

	"github.com/hashicorp/consul/api"
)

// Register registers s with the agent. Register replaces a service that has the ID of s, and all checks of that
// service.
func (c *Client) Register(ctx context.Context, s *api.AgentServiceRegistration) error {
	replace := url.Values{"replace-existing-checks": {"true"}}
	return c.Call(ctx, http.MethodPut, "/v1/agent/service/register", replace, s, nil)
}

// FindService returns nil if a service with this ID is registered with the agent. If not, the error is a *StatusError
// with the status 404.
func (c *Client) FindService(ctx context.Context, id string) error {
	return c.Call(ctx, http.MethodGet, "/v1/agent/service/"+url.PathEscape(id), nil, nil, nil)
}

// Deregister removes the service with this ID, and its checks, from the agent.
func (c *Client) Deregister(ctx context.Context, id string) error {
	return c.Call(ctx, http.MethodPut, "/v1/agent/service/deregister/"+url.PathEscape(id), nil, nil, nil)
}

// EnterMaintenance puts the service with this ID into maintenance. Operators see the reason.
func (c *Client) EnterMaintenance(ctx context.Context, id, reason string) error {
	return c.maintain(ctx, id, url.Values{"enable": {"true"}, "reason": {reason}})
}

// LeaveMaintenance ends the maintenance of the service with this ID, if it is in maintenance.
func (c *Client) LeaveMaintenance(ctx context.Context, id string) error {
	return c.maintain(ctx, id, url.Values{"enable": {"false"}})
}

func (c *Client) maintain(ctx context.Context, id string, values url.Values) error {
	return c.Call(ctx, http.MethodPut, "/v1/agent/service/maintenance/"+url.PathEscape(id), values, nil, nil)
}

// UpdateCheck sets the status of a TTL check and starts its TTL again. The agent may answer a check ID that it does
// not know with the status 404 or, in old versions, 500.
func (c *Client) UpdateCheck(ctx context.Context, id, status, output string) error {
	update := struct{ Status, Output string }{status, output}
	return c.Call(ctx, http.MethodPut, "/v1/agent/check/update/"+url.PathEscape(id), nil, update, nil)
}
