package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"
)

// A PeeringError says that a cluster peering cannot provide instances. Consul answers such a query with 200 and an
// empty list, even if it has never known the peering.
type PeeringError struct {
	Peer  string
	State api.PeeringState // empty if the peering does not exist
}

func (e *PeeringError) Error() string {
	switch e.State {
	case "":
		return fmt.Sprintf("consul has no cluster peering %q: correct the name, or establish it "+
			"(consul peering establish -name %s)", e.Peer, e.Peer)
	case api.PeeringStateTerminated:
		return fmt.Sprintf("the cluster peering %q is terminated: the other side has deleted it; "+
			"delete it here and establish it again", e.Peer)
	}
	return fmt.Sprintf("the cluster peering %q is %s and brings no instances: see consul peering read -name %s",
		e.Peer, strings.ToLower(string(e.State)), e.Peer)
}

// Peering returns nil if the cluster peering exists, so that an empty answer from it may be true. A peering that fails
// now counts as existing, because Consul keeps the instances that it had. Peering also returns nil if the token lacks
// peering:read. If the peering does not exist or has ended, Peering returns a *PeeringError.
func (c *Client) Peering(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Grace, &TimeoutError{Grace})
	defer cancel()
	values := url.Values{}
	var found struct{ State api.PeeringState }
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
	case api.PeeringStateActive, api.PeeringStateFailing:
		return nil
	}
	return &PeeringError{Peer: name, State: found.State}
}
