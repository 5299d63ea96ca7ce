package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// A MissingRightError says that an answer is empty, or smaller than before, because the token may not read the
// instances. Consul uses the status 200 for such an answer.
type MissingRightError struct {
	Missing string // the result of MissingRight
	Some    bool   // the answer has instances, but some have vanished, perhaps because of a missing right
}

func (e *MissingRightError) Error() string {
	if e.Some {
		return "instances have vanished, and the token may see less than before: perhaps it lacks " + e.Missing
	}
	return "the answer is empty because the token may not see the instances: it lacks " + e.Missing
}

// rightsTimeout limits how long MissingRight may take.
const rightsTimeout = 5 * time.Second

// MissingRight returns a description of the right that the token lacks to read the instances of a service. Call it
// after an empty answer from which Consul left something out. An empty service means that its name is not known, as for
// a prepared query. An empty datacenter means the agent's.
//
// Consul's answer does not name the missing right. For the service, MissingRight asks Consul as Consul's own user
// interface does. For nodes, it reads the list of all nodes, which has only the nodes that the token may read.
func (c *Client) MissingRight(ctx context.Context, service, datacenter string) string {
	const unknown = "service:read or node:read"
	if service == "" {
		return unknown
	}
	ctx, cancel := context.WithTimeout(ctx, rightsTimeout)
	defer cancel()
	values := url.Values{}
	if datacenter != "" {
		values.Set("dc", datacenter)
	}
	mayRead, err := c.authorize(ctx, values, "read", service)
	if err != nil {
		return unknown
	}
	right := fmt.Sprintf("service:read for %q", service)
	var nodes []json.RawMessage
	err = c.Call(ctx, http.MethodGet, "/v1/catalog/nodes", values, nil, &nodes)
	switch {
	case err != nil && !mayRead:
		return right
	case err != nil:
		return "node:read"
	case !mayRead && len(nodes) == 0:
		return right + ", and node:read"
	case !mayRead:
		return right
	case len(nodes) == 0:
		return "node:read"
	}
	return "node:read for the nodes that the instances are on"
}

// MayWrite reports whether the token has service:write for a service. Consul does not say so without ACLs, which is an
// error.
func (c *Client) MayWrite(ctx context.Context, service string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, rightsTimeout)
	defer cancel()
	return c.authorize(ctx, url.Values{}, "write", service)
}

// authorize asks whether the token has a kind of access to a service.
func (c *Client) authorize(ctx context.Context, values url.Values, access, service string) (bool, error) {
	var allowed []struct{ Allow bool }
	question := []map[string]string{{"Resource": "service", "Access": access, "Segment": service}}
	err := c.Call(ctx, http.MethodPost, "/v1/internal/acl/authorize", values, question, &allowed)
	switch {
	case err != nil:
		return false, err
	case len(allowed) != 1:
		return false, fmt.Errorf("%d answers to one question", len(allowed))
	}
	return allowed[0].Allow, nil
}
