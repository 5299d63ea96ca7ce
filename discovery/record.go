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
	usual    map[string]lb.Place // their usual addresses and default ports; the same if the query asks for no others
}

// occupied reports whether another instance is at a place. Other instances have a service ID that differs from id.
func (r *record) occupied(id string, at lb.Place) bool {
	for _, places := range []map[string]lb.Place{r.services, r.usual} {
		for other, there := range places {
			if other != id && there == at {
				return true
			}
		}
	}
	return false
}

// errHidden is the error for a node that the token may not see completely.
var errHidden = errors.New("the token may not see all of the node")

// record asks the leader for the record of a node, which has addresses as q chooses them.
func (c *Consul) record(ctx context.Context, node string, q *Query) (record, error) {
	place := Query{Datacenter: q.Datacenter, Namespace: q.Namespace, Partition: q.Partition}
	values := place.values()
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
	return recordIn(resp.Body, q)
}

// recordIn parses the answer for a node. recordIn leaves out instances with an address that cannot be dialled.
func recordIn(body []byte, q *Query) (record, error) {
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
	r := record{known: true, born: answer.Node.CreateIndex, services: make(map[string]lb.Place, len(answer.Services)),
		usual: make(map[string]lb.Place, len(answer.Services))}
	for _, s := range answer.Services {
		if s == nil {
			continue
		}
		node := *answer.Node
		one := &entry{Node: &node, Service: s}
		q.fields().store(one, nil)
		if e, err := endpointOf(one, q.Port); err == nil {
			r.services[s.ID] = e.Place()
		}
		s.Tagged = taggedAddress{}
		if e, err := endpointOf(one, ""); err == nil {
			r.usual[s.ID] = e.Place()
		}
	}
	return r, nil
}
