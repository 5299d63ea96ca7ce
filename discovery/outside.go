package discovery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A wayIn is an instance that leads into the mesh.
type wayIn struct {
	Node    struct{ Node string }
	Service struct {
		ID, Kind string
		Proxy    struct{ DestinationServiceID string }
	}
}

// outside returns the instances that q, a query with Mesh, cannot name because they are not in the mesh: they have no
// sidecar, and do not speak mTLS themselves. If there is a terminating gateway, any instance may be behind it, so
// outside returns none.
func (c *Consul) outside(ctx context.Context, q Query) ([]Instance, error) {
	q.Tags, q.Filter = nil, ""
	in, err := c.waysIn(ctx, &q)
	if err != nil {
		return nil, err
	}
	plain := q
	plain.Mesh, plain.sni = false, ""
	all, err := c.once(ctx, plain)
	if err != nil {
		return nil, err
	}
	var out []Instance
	for _, e := range all.entries {
		if e == nil || e.Node == nil || e.Service == nil || covered(in, e) {
			continue
		}
		one := convertOne(e, all.rules(&plain))
		one.Out, one.Detail = OutMesh, "it is not in the mesh: it has no sidecar, and is not registered as native"
		out = append(out, one)
	}
	return out, nil
}

// waysIn asks Consul for the ways into the mesh that lead to the service of q.
func (c *Consul) waysIn(ctx context.Context, q *Query) ([]wayIn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, consul.Grace, &consul.TimeoutError{After: consul.Grace})
	defer cancel()
	resp, err := c.client.Query(ctx, consul.Request{Path: q.path(), Values: q.values()})
	if err != nil {
		return nil, fmt.Errorf("ask consul for the sidecars of service %q: %w", q.Service, err)
	}
	defer resp.Free()
	if consul.TooManyElements(resp.Body) {
		return nil, consul.ErrTooManyElements
	}
	var all []wayIn
	if err := json.Unmarshal(resp.Body, &all); err != nil {
		return nil, fmt.Errorf("answer cannot be read: %w", err)
	}
	return all, nil
}

// covered reports whether one of ways leads to the instance e. A sidecar that does not say which instance it belongs to
// may belong to any on its node.
func covered(ways []wayIn, e *entry) bool {
	return slices.ContainsFunc(ways, func(w wayIn) bool {
		s, here := &w.Service, w.Node.Node == e.Node.Node
		switch s.Kind {
		case kindGateway:
			return true
		case kindSidecar:
			of := s.Proxy.DestinationServiceID
			return here && (of == "" || of == e.Service.ID)
		}
		return here && s.ID == e.Service.ID
	})
}
