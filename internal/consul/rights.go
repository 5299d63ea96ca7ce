package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// A MissingRightError is what an empty answer comes to if the token may not see what there is. Consul calls this a success.
type MissingRightError struct{ Missing string }

func (e *MissingRightError) Error() string {
	return "the answer is empty because the token may not see the instances: it lacks " + e.Missing
}

// rightsTimeout is how long finding out which right is missing may take.
const rightsTimeout = 5 * time.Second

// MissingRight tells which right the token lacks for an answer for a service in a datacenter (empty: the agent's) that was empty. Consul does not say with the answer. It says for services
// when asked as its own user interface asks; and which nodes may be read shows in the list of all nodes.
func (c *Client) MissingRight(ctx context.Context, service, datacenter string) string {
	ctx, cancel := context.WithTimeout(ctx, rightsTimeout)
	defer cancel()
	values := url.Values{}
	if datacenter != "" {
		values.Set("dc", datacenter)
	}
	var allowed []struct{ Allow bool }
	question := []map[string]string{{"Resource": "service", "Access": "read", "Segment": service}}
	err := c.Call(ctx, http.MethodPost, "/v1/internal/acl/authorize", values, question, &allowed)
	if err != nil || len(allowed) != 1 {
		return "service:read or node:read"
	}
	right := fmt.Sprintf("service:read for %q", service)
	var nodes []json.RawMessage
	err = c.Call(ctx, http.MethodGet, "/v1/catalog/nodes", values, nil, &nodes)
	switch {
	case err != nil && !allowed[0].Allow:
		return right
	case err != nil:
		return "node:read"
	case !allowed[0].Allow && len(nodes) == 0:
		return right + ", and node:read"
	case !allowed[0].Allow:
		return right
	case len(nodes) == 0:
		return "node:read"
	}
	return "node:read for the nodes that the instances are on"
}
