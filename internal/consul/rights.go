package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// A MissingRightError says that an answer is empty, or smaller than before, because the token may not see the
// instances. Consul answers 200 then.
type MissingRightError struct {
	Missing string // what MissingRight returned
	Some    bool   // the answer is not empty, but some instances have vanished, perhaps because of that
}

func (e *MissingRightError) Error() string {
	if e.Some {
		return "instances have vanished, and the token may see less than before: perhaps it lacks " + e.Missing
	}
	return "the answer is empty because the token may not see the instances: it lacks " + e.Missing
}

// rightsTimeout bounds how long MissingRight may take.
const rightsTimeout = 5 * time.Second

// MissingRight returns which right the token lacks to see the instances of a service, as text. It is to be called
// after an empty answer from which Consul left something out. An empty datacenter means the agent's.
//
// Consul does not say with such an answer which right it is. For the service it says so if it is asked as its own
// user interface asks. For nodes, the list of all nodes shows which ones the token may see.
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
