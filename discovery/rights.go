package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// A filteredError is what an empty answer comes to if the token may not see what there is. Consul calls this a success.
type filteredError struct{ missing string }

func (e *filteredError) Error() string {
	return "the answer is empty because the token may not see the instances: it lacks " + e.missing
}

// rightsTimeout is how long finding out which right is missing may take.
const rightsTimeout = 5 * time.Second

// object returns why an answer to a query that was asked with this index is not to be taken for the truth, although Consul calls it a
// success; nil: it may be.
func (w *watch) object(ctx context.Context, asked uint64, a *answer) error {
	empty := len(a.entries) == 0
	switch {
	case empty && a.filtered && asked == 0:
		return w.diagnose(ctx)
	case w.query.Peer != "" && (empty || w.confirm || len(w.holder.until) > 0):
		// What a peering brought goes bit by bit when it ends, and before it is said to have ended: so what is held goes only if it has not.
		return w.consul.client.peering(ctx, &w.query)
	}
	return nil
}

// diagnose returns the error for an answer that is empty because something was left out. Which right is missing is asked once for each
// time that one is.
func (w *watch) diagnose(ctx context.Context) error {
	if w.denied == nil || w.fails == 0 {
		w.denied = &filteredError{missing: w.consul.client.missing(ctx, w.query)}
	}
	return w.denied
}

// missing tells which right the token lacks for an answer to q that was empty. Consul does not say with the answer. It says for services
// when asked as its own user interface asks; and which nodes may be read shows in the list of all nodes.
func (c *client) missing(ctx context.Context, q Query) string {
	ctx, cancel := context.WithTimeout(ctx, rightsTimeout)
	defer cancel()
	values := url.Values{}
	if q.Datacenter != "" {
		values.Set("dc", q.Datacenter)
	}
	c.enterprise(values)
	var allowed []struct{ Allow bool }
	question, err := json.Marshal([]map[string]string{{"Resource": "service", "Access": "read", "Segment": q.Service}})
	if err == nil {
		err = c.ask(ctx, http.MethodPost, "/v1/internal/acl/authorize", values, bytes.NewReader(question), &allowed)
	}
	if err != nil || len(allowed) != 1 {
		return "service:read or node:read"
	}
	service := fmt.Sprintf("service:read for %q", q.Service)
	var nodes []json.RawMessage
	err = c.ask(ctx, http.MethodGet, "/v1/catalog/nodes", values, nil, &nodes)
	switch {
	case err != nil && !allowed[0].Allow:
		return service
	case err != nil:
		return "node:read"
	case !allowed[0].Allow && len(nodes) == 0:
		return service + ", and node:read"
	case !allowed[0].Allow:
		return service
	case len(nodes) == 0:
		return "node:read"
	}
	return "node:read for the nodes that the instances are on"
}

// ask reads what the API answers to one request into v.
func (c *client) ask(ctx context.Context, method, path string, values url.Values, body io.Reader, v any) error {
	resp, err := c.do(ctx, method, path, values, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		return &statusError{code: resp.StatusCode, text: readable(string(text))}
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, c.bodyLimit))
	if err != nil {
		return err
	}
	if tooMany(answer) {
		return errTooMany
	}
	return json.Unmarshal(answer, v)
}
