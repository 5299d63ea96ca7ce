package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// A record is the catalog's record of a node.
type record struct {
	known    bool                // the node is registered; if false, the other fields are empty
	born     uint64              // the index at which the node was registered
	services map[string]lb.Place // addresses of the node's instances of all services, by service ID
}

// occupied reports whether another instance is at a place. Other instances have a service ID that differs from id.
func (r *record) occupied(id string, at lb.Place) bool {
	for other, there := range r.services {
		if other != id && there == at {
			return true
		}
	}
	return false
}

// errHidden is the error for a node that the token may not see completely.
var errHidden = errors.New("the token may not see all of the node")

// record asks the leader for the record of a node. An empty datacenter means the agent's own datacenter.
func (c *Consul) record(ctx context.Context, node, datacenter string) (record, error) {
	values := url.Values{}
	if datacenter != "" {
		values.Set("dc", datacenter)
	}
	resp, err := c.client.Query(ctx, consul.Request{
		Path: "/v1/catalog/node-services/" + url.PathEscape(node), Values: values, Consistent: true,
	})
	if err != nil {
		return record{}, err
	}
	defer resp.Free()
	if resp.Filtered {
		return record{}, errHidden
	}
	return recordIn(resp.Body)
}

// recordIn parses the answer for a node. recordIn leaves out instances with an address that cannot be dialled.
func recordIn(body []byte) (record, error) {
	if consul.TooManyElements(body) {
		return record{}, consul.ErrTooManyElements
	}
	var answer struct {
		Node     *entryNode
		Services []*entryService
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return record{}, err
	}
	if answer.Node == nil {
		return record{}, nil
	}
	r := record{known: true, born: answer.Node.CreateIndex, services: make(map[string]lb.Place, len(answer.Services))}
	for _, s := range answer.Services {
		if e, err := endpointOf(&entry{Node: answer.Node, Service: s}); err == nil {
			r.services[s.ID] = e.Place()
		}
	}
	return r, nil
}
