package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// A PeeringError is what an empty answer comes to if there is no cluster peering that could bring instances. Consul calls this a success,
// with index 1 for a peering that it has never heard of.
type PeeringError struct {
	Peer  string
	State string // Consul's word for it, in lower case; empty: there is no such peering
}

func (e *PeeringError) Error() string {
	switch e.State {
	case "":
		return fmt.Sprintf("consul has no cluster peering %q: correct the name, or establish it (consul peering establish -name %s)", e.Peer, e.Peer)
	case "terminated":
		return fmt.Sprintf("the cluster peering %q is terminated: the other side has deleted it; delete it here and establish it again", e.Peer)
	}
	return fmt.Sprintf("the cluster peering %q is %s and brings no instances: see consul peering read -name %s", e.Peer, e.State, e.Peer)
}

// Peering returns nil if there is a cluster peering of that name, so that an empty answer of it may be true. One that fails at the moment is as good
// as one that works: Consul keeps what it had from it. What a token without peering:read may not know, nobody will tell.
func (c *Client) Peering(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Grace, &TimeoutError{Grace})
	defer cancel()
	values := url.Values{}
	var found struct{ State string }
	err := c.Call(ctx, http.MethodGet, "/v1/peering/"+url.PathEscape(name), values, nil, &found)
	var status *StatusError
	switch {
	case errors.As(err, &status) && status.Code == http.StatusNotFound:
		return &PeeringError{Peer: name}
	case errors.As(err, &status) && status.Code == http.StatusForbidden:
		return nil
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("read cluster peering %q: %w", name, err)
	}
	switch found.State {
	case "ACTIVE", "FAILING":
		return nil
	}
	return &PeeringError{Peer: name, State: strings.ToLower(found.State)}
}
