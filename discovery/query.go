package discovery

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// normalize returns q in the form that all queries with the same answers have. normalize replaces an empty datacenter
// by the given one. Equal queries let watches share one query, and let the agent share its view of the service.
func (q Query) normalize(datacenter string) Query {
	q.Service = strings.TrimSpace(q.Service)
	q.Filter = strings.TrimSpace(q.Filter)
	tags := make([]string, 0, len(q.Tags))
	for _, tag := range q.Tags {
		tags = append(tags, strings.ToLower(tag))
	}
	slices.Sort(tags)
	q.Tags = slices.Compact(tags)
	if len(q.Statuses) == 0 {
		q.Statuses = passingOnly
	}
	q.Statuses = slices.Compact(slices.Sorted(slices.Values(q.Statuses)))
	q.SocketPaths = slices.Compact(slices.Sorted(slices.Values(q.SocketPaths)))
	if q.Datacenter == "" {
		q.Datacenter = datacenter
	}
	if q.Mesh { // the mesh says which names its instances have
		q.ServerNameMeta, q.ServerNameTag = "", ""
	}
	return q
}

// canonical returns the same text for all normalized queries with the same instances. Consul ignores the
// case of service names, except for identities of the mesh.
func (q Query) canonical() string {
	if !q.Mesh {
		q.Service = strings.ToLower(q.Service)
	}
	parts := []any{q.Service, q.Tags, q.Filter, q.Datacenter, q.Near, q.Statuses, q.Peer, q.Prepared}
	if len(q.SocketPaths) > 0 { // other texts stay as they were, because they are keys in files
		parts = append(parts, q.SocketPaths)
	}
	if q.Namespace+q.Partition != "" {
		parts = append(parts, "ns="+q.Namespace, "partition="+q.Partition)
	}
	if names := q.names(); names != (nameRule{}) {
		parts = append(parts, "server_name_meta="+names.meta, "server_name_tag="+names.tag)
	}
	if q.Port != "" {
		parts = append(parts, "port="+q.Port)
	}
	if q.Address != "" {
		parts = append(parts, "address="+q.Address)
	}
	if q.Mesh {
		parts = append(parts, "mesh", "sni="+q.sni)
	}
	if q.Prefer != (Prefer{}) {
		parts = append(parts, "prefer="+q.Prefer.By, q.Prefer.Region, q.Prefer.Zone)
	}
	return fmt.Sprintf("%q", parts)
}

// mayStream reports whether an agent with its own view of the catalog answers q from it. Instances by distance and
// discovery chains always come from the servers.
func (q *Query) mayStream() bool { return q.Near == "" && !q.chain }

// path returns the API path that answers q, escaped.
func (q Query) path() string {
	if q.chain {
		return "/v1/discovery-chain/" + url.PathEscape(q.Service)
	}
	if q.Prepared != "" {
		return "/v1/query/" + url.PathEscape(q.Prepared) + "/execute"
	}
	if q.Mesh {
		return "/v1/health/connect/" + url.PathEscape(q.Service)
	}
	return "/v1/health/service/" + url.PathEscape(q.Service)
}

// String returns q as one line of text for people. String leaves out default values.
func (q Query) String() string {
	text := q.Service
	if q.chain {
		text = "discovery chain of " + q.Service
	}
	if q.Prepared != "" {
		text = "prepared query " + q.Prepared
	}
	if q.Mesh {
		text += " in the mesh"
	}
	add := func(name, value string) {
		if value != "" {
			text += " " + name + "=" + value
		}
	}
	add("tags", strings.Join(q.Tags, ","))
	add("filter", q.Filter)
	add("dc", q.Datacenter)
	add("peer", q.Peer)
	add("ns", q.Namespace)
	add("partition", q.Partition)
	add("near", q.Near)
	if !slices.Equal(q.Statuses, passingOnly) {
		add("statuses", strings.Join(q.Statuses, ","))
	}
	add("socket_paths", strings.Join(q.SocketPaths, ","))
	add("port", q.Port)
	add("address", q.Address)
	add("prefer", q.Prefer.By)
	add("server_name_meta", q.ServerNameMeta)
	add("server_name_tag", q.ServerNameTag)
	return consul.OneLine(text)
}

// serviceAsked returns the name of the service in Consul. For a prepared query, which Consul resolves, it is empty.
func (q Query) serviceAsked() string {
	if q.Prepared != "" {
		return ""
	}
	return q.Service
}

// place returns the place in which q selects instances, as text for people.
func (q Query) place() string {
	switch {
	case q.Prepared != "":
		return "prepared query " + q.Prepared
	case q.Peer != "":
		return "peer " + q.Peer
	case q.Datacenter != "":
		return "datacenter " + q.Datacenter
	}
	return "the agent's datacenter"
}

// values returns the URL parameters of q. The parameters do not exclude unhealthy instances, so that Explain can say
// why such instances are out.
func (q Query) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("ns", q.Namespace)
	set("partition", q.Partition)
	if q.chain {
		set("compile-dc", q.Datacenter)
		return v
	}
	if q.Prepared != "" { // a prepared query defines everything else itself
		q = Query{Datacenter: q.Datacenter, Near: q.Near}
	}
	for _, tag := range q.Tags {
		v.Add("tag", tag)
	}
	set("filter", q.Filter)
	set("dc", q.Datacenter)
	set("near", q.Near)
	set("peer", q.Peer)
	return v
}
