package discovery

import (
	"encoding/json"
	"fmt"
	"strings"
)

// A fieldRule says which of an instance's free fields a query needs: those that only some queries look at, and that may
// be long or strange. The zero value needs none.
type fieldRule struct {
	names   nameRule
	address string // see Query.Address
	near    string // see Prefer.metaKey
	mesh    string // the service of a query with Query.Mesh; empty: another query
}

func (q *Query) fields() fieldRule {
	r := fieldRule{names: q.names(), address: q.Address, near: q.Prefer.metaKey()}
	if q.Mesh {
		r.mesh = q.Service
	}
	return r
}

// resolve reads the needed fields of e, and drops the text of all free fields. The argument text is the JSON of e. Call
// it once, before trim shortens the tags.
func (r fieldRule) resolve(e *entry, text []byte) error {
	if r.mesh == "" {
		r.store(e, nil)
		return nil
	}
	var w way
	if err := json.Unmarshal(text, &w); err != nil {
		return fmt.Errorf("answer cannot be read: %w", err)
	}
	r.store(e, &w)
	return nil
}

// resolveAll is resolve for all entries of an answer. The argument text is the JSON of the list.
func (r fieldRule) resolveAll(entries []*entry, text []byte) error {
	var ways []way
	if r.mesh != "" {
		if err := json.Unmarshal(text, &ways); err != nil {
			return fmt.Errorf("answer cannot be read: %w", err)
		}
	}
	for i, e := range entries {
		var w *way
		if ways != nil {
			w = &ways[i]
		}
		r.store(e, w)
	}
	return nil
}

// store stores the needed fields of e in e, and drops the text of all free fields. A nil w means that it does not
// matter who e is in the mesh.
func (r fieldRule) store(e *entry, w *way) {
	if e == nil || e.Service == nil {
		return
	}
	s := e.Service
	if w != nil {
		s.Identity, s.Gateway, s.NoWay = w.find(r.mesh, e.Node)
	}
	s.ServerName, s.NoServerName = r.names.find(s)
	if r.address != "" {
		s.Tagged = taggedOf(e, r.address, r.mesh == "" || s.Address == "")
	}
	if r.near != "" {
		s.NearMeta = metaOf(e, r.near)
	}
	s.Meta, s.TaggedAddresses = nil, nil
	if e.Node != nil {
		e.Node.Meta, e.Node.TaggedAddresses = nil, nil
	}
}

// A taggedAddress is an address that a registration has under a name, such as "wan".
type taggedAddress struct {
	Address string // empty: there is none
	Port    int    // zero: the port of the instance counts
}

// taggedOf returns the tagged address of e's service. If the service has none of that name and orNode is true, taggedOf
// returns the one of e's node. In the mesh, the node counts only for a service without an address of its own, as it
// does for Envoy.
func taggedOf(e *entry, name string, orNode bool) taggedAddress {
	var service map[string]taggedAddress
	_ = json.Unmarshal(e.Service.TaggedAddresses, &service) // what is no address is missing
	one := service[name]
	if one.Address = strings.TrimSpace(one.Address); one.Address != "" || e.Node == nil || !orNode {
		return one
	}
	var node map[string]string
	_ = json.Unmarshal(e.Node.TaggedAddresses, &node)
	return taggedAddress{Address: strings.TrimSpace(node[name])}
}
