package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// Register registers s with the agent. Register replaces a service that has the ID of s, and all checks of that
// service.
func (c *Client) Register(ctx context.Context, s *api.AgentServiceRegistration) error {
	replace := url.Values{"replace-existing-checks": {"true"}}
	return c.Call(ctx, http.MethodPut, "/v1/agent/service/register", replace, s, nil)
}

// RegisterAgain is Register, except that checks which s lacks stay, such as that of a maintenance.
func (c *Client) RegisterAgain(ctx context.Context, s *api.AgentServiceRegistration) error {
	return c.Call(ctx, http.MethodPut, "/v1/agent/service/register", nil, s, nil)
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

// Services returns the services that are registered with the agent and match filter, by ID; an empty filter matches
// all. The agent answers from its own memory, without a server. filtered reports that the agent left services out
// because the token may not read them.
func (c *Client) Services(
	ctx context.Context, filter string,
) (all map[string]*api.AgentService, filtered bool, err error) {
	filtered, err = c.list(ctx, "/v1/agent/services", filter, &all)
	return all, filtered, err
}

// Checks returns the agent's checks that match filter, by ID, as Services does.
func (c *Client) Checks(ctx context.Context, filter string) (all map[string]*api.AgentCheck, err error) {
	_, err = c.list(ctx, "/v1/agent/checks", filter, &all)
	return all, err
}

// list decodes what the agent has in its own memory into out.
func (c *Client) list(ctx context.Context, path, filter string, out any) (filtered bool, err error) {
	values := url.Values{}
	if filter != "" {
		values.Set("filter", filter)
	}
	a, err := c.Query(ctx, Request{Path: path, Values: values, NoIndex: true})
	if err != nil {
		return false, err
	}
	defer a.Free()
	if TooManyElements(a.Body) {
		return false, ErrTooManyElements
	}
	if err := json.Unmarshal(a.Body, out); err != nil {
		return false, fmt.Errorf("the answer is not what an agent has: %w", err)
	}
	return a.Filtered, nil
}

// ServiceChange waits until the agent's service with this ID differs from hash, or until wait is over. It returns the
// hash of the service as it is then. An empty hash does not wait. If the service is not registered, the error is a
// *StatusError with the status 404.
func (c *Client) ServiceChange(ctx context.Context, id, hash string, wait time.Duration) (string, error) {
	values := url.Values{}
	if hash != "" {
		values.Set("hash", hash)
		values.Set("wait", strconv.FormatInt(wait.Milliseconds(), 10)+"ms")
	}
	var now struct{ ContentHash string }
	err := c.Call(ctx, http.MethodGet, "/v1/agent/service/"+url.PathEscape(id), values, nil, &now)
	return now.ContentHash, err
}
