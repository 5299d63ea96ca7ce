package discovery

import (
	"encoding/json"
	"strings"
)

// A fieldRule says which of an instance's free fields a query needs: those that only some queries look at, and that may
// be long or strange. The zero value needs none.
type fieldRule struct {
	names   nameRule
	address string // see Query.Address
}

func (q *Query) fields() fieldRule { return fieldRule{q.names(), q.Address} }

// resolve reads the needed fields of e, and drops the text of all free fields. Call it once, before trim shortens the
// tags.
func (r fieldRule) resolve(e *entry) {
	if e == nil || e.Service == nil {
		return
	}
	s := e.Service
	s.ServerName, s.NoServerName = r.names.find(s)
	if r.address != "" {
		s.Tagged = taggedOf(e, r.address)
	}
	s.Meta, s.TaggedAddresses = nil, nil
	if e.Node != nil {
		e.Node.TaggedAddresses = nil
	}
}

// A taggedAddress is an address that a registration has under a name, such as "wan".
type taggedAddress struct {
	Address string // empty: there is none
	Port    int    // zero: the port of the instance counts
}

// taggedOf returns the tagged address of e's service. If the service has none of that name, taggedOf returns the one of
// e's node.
func taggedOf(e *entry, name string) taggedAddress {
	var service map[string]taggedAddress
	_ = json.Unmarshal(e.Service.TaggedAddresses, &service) // what is no address is missing
	one := service[name]
	if one.Address = strings.TrimSpace(one.Address); one.Address != "" || e.Node == nil {
		return one
	}
	var node map[string]string
	_ = json.Unmarshal(e.Node.TaggedAddresses, &node)
	return taggedAddress{Address: strings.TrimSpace(node[name])}
}
