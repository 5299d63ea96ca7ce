package config

import (
	"path"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/lictor-proxy/lictor/internal/hostport"
)

// newQuery returns the query of an empty consul block.
func newQuery(name string) ConsulQuery {
	return ConsulQuery{Service: name, Statuses: []string{statusPassing}, MaxDrop: DefaultMaxDrop,
		DropHold: DefaultDropHold, HoldMax: defaultHoldMax()}
}

// queries reads a consul block of the service called name. It returns one query, or one for each datacenter of the
// block.
func (l *loader) queries(b *block, name string) []ConsulQuery {
	q := newQuery(name)
	if v, ok := b.pathText("service", maxConsulName); ok {
		q.Service = v
	}
	q.Datacenter, _ = b.shortText("datacenter", maxConsulName)
	q.Namespace, q.Partition = b.enterprise("namespace"), b.enterprise("partition")
	q.Peer, _ = b.pathText("peer", maxConsulName)
	q.PreparedQuery, _ = b.pathText("prepared_query", maxConsulName)
	q.Near, _ = b.shortText("near", maxConsulName)
	q.Port = b.portName()
	q.Address = b.taggedAddress()
	var ok bool
	if q.Filter, ok = b.shortText("filter", maxFilter); ok {
		q.FilterRange = *b.rangeOf("filter")
	}
	q.Tags = b.texts("tags", `["v2"]`, "tag")
	if n := len(q.Tags); n > maxTags {
		b.l.problem(b.rangeOf("tags"), "Too many tags", "tags: %d are too many. Write at most %d, or a filter.",
			n, maxTags)
	}
	if b.has("statuses") {
		q.Statuses = b.statuses()
	}
	q.SocketPaths = b.socketPaths()
	q.MaxDrop = orOff(b.integer("max_drop", DefaultMaxDrop, 0, 100))
	q.DropHold = b.durationOrNone("drop_hold", DefaultDropHold, Off)
	q.HoldMax = b.holdMax()
	b.exclusions()
	return b.datacenters(q)
}

// maxPortName limits the name of a port, in bytes. Discovery keeps no longer names.
const maxPortName = 128

// portName reads port, the name of a port.
func (b *block) portName() string {
	const want = `write the name that the port has in Consul, such as "metrics". ` +
		`If instances have one port only, remove the argument`
	if _, ok := b.value("port", cty.String, want); !ok {
		return ""
	}
	name, _ := b.shortText("port", maxPortName)
	return name
}

// taggedAddress reads address, the name of a tagged address.
func (b *block) taggedAddress() string {
	name, _ := b.shortText("address", maxConsulName)
	switch {
	case strings.ContainsAny(name, ":/.[]"):
		b.l.problem(b.rangeOf("address"), "Bad name of an address", "address: %q looks like an address. "+
			"Write the name of a tagged address that the instances have in Consul, such as \"wan\". "+
			"The address of the Consul agent stands in the consul block outside of the services, "+
			"and fixed instances stand in a static block.", name)
	case name == "virtual":
		b.l.problem(b.rangeOf("address"), "Bad name of an address", "address: \"virtual\" is the address of a whole "+
			"service in Consul's transparent proxy, and no instance listens there. Leave address out.")
	}
	return name
}

// enterprise reads the namespace or the partition of a service.
func (b *block) enterprise(name string) string {
	v, ok := b.text(name)
	if ok && !isEnterpriseName(v) {
		b.l.problem(b.rangeOf(name), "Bad name", "%s: %s.", name, enterpriseHint)
	}
	return v
}

// defaultHoldMax returns the HoldMax of a query that sets none.
func defaultHoldMax() HoldMax { return HoldMax{Critical: DefaultHoldMax, Forgotten: DefaultHoldMax} }

// holdMax reads the argument hold_max, which applies to all reasons, or the block hold_max, which has an argument for
// each reason.
func (b *block) holdMax() HoldMax {
	each := b.eachReason("hold_max", holdMaxSchema())
	if each == nil {
		all := b.durationOrNone("hold_max", DefaultHoldMax, Off)
		return HoldMax{Critical: all, Forgotten: all}
	}
	return HoldMax{
		Critical:  each.durationOrNone("critical", DefaultHoldMax, Off),
		Forgotten: each.durationOrNone("forgotten", DefaultHoldMax, Off),
	}
}

// datacenters returns a copy of q for each of the block's datacenters, or only q if the block lists none.
func (b *block) datacenters(q ConsulQuery) []ConsulQuery {
	if !b.has("datacenters") {
		return []ConsulQuery{q}
	}
	var all []ConsulQuery
	for _, datacenter := range b.texts("datacenters", `["dc1", "dc2"]`, "datacenter") {
		if slices.ContainsFunc(all, func(other ConsulQuery) bool { return other.Datacenter == datacenter }) {
			b.l.problem(b.rangeOf("datacenters"), "Duplicate datacenter",
				"datacenters: %q is listed twice. Remove one of them.", datacenter)
		}
		q.Datacenter = datacenter
		all = append(all, q)
	}
	if len(all) == 0 {
		all = []ConsulQuery{q}
	}
	return all
}

// exclusions reports pairs of arguments that a consul block cannot have together.
func (b *block) exclusions() {
	for _, pair := range [][2]string{
		{"datacenters", "datacenter"}, {"datacenters", "peer"},
		{"peer", "datacenter"}, {"peer", "prepared_query"}, {"peer", "near"}, {"peer", "socket_paths"},
		{"prepared_query", "service"}, {"prepared_query", "tags"}, {"prepared_query", "filter"},
	} {
		if b.has(pair[0]) && b.has(pair[1]) {
			b.l.problem(b.attrs[pair[1]].NameRange.Ptr(), "Arguments that exclude each other",
				"A consul block cannot have both %s and %s. Remove one. "+
					"To try one after the other, write two consul blocks.", pair[0], pair[1])
		}
	}
}

// The statuses of instances that can be in the list statuses.
const (
	statusPassing  = "passing"
	statusWarning  = "warning"
	statusCritical = "critical"
)

// statuses reads the list of statuses whose instances are used. The list must have "passing": a service that uses only
// failing instances is a mistake.
func (b *block) statuses() []string {
	const example = `["passing", "warning"]`
	list := b.texts("statuses", example, "status")
	for i, v := range list {
		if _, err := indexOf(v, []string{statusPassing, statusWarning, statusCritical}); err != nil {
			b.l.problem(b.rangeOf("statuses"), "Unknown status", "%v.", err)
			list[i] = statusPassing
		}
	}
	if !slices.Contains(list, statusPassing) {
		b.l.problem(b.rangeOf("statuses"), "Bad statuses",
			"statuses: the list must have \"passing\". Write %s, or leave statuses out.", example)
	}
	return list
}

// socketPaths reads the patterns for paths of Unix sockets.
func (b *block) socketPaths() []string {
	list := b.texts("socket_paths", `["/run/app/*"]`, "pattern")
	for _, pattern := range list {
		problem := hostport.BadSocketPath(pattern)
		if _, err := path.Match(pattern, "/"); err != nil {
			problem = "it has a bracket or backslash without its end"
		}
		if problem != "" {
			b.l.problem(b.rangeOf("socket_paths"), "Bad pattern", "socket_paths: %q: %s. Write the path of a socket, "+
				"such as \"/run/app/db.sock\", or a pattern such as \"/run/app/*\".", pattern, problem)
		}
	}
	return list
}

// checkedFromHere reports a query that uses critical instances in a service without a check over HTTP. Lictor must
// check itself whether critical instances work.
func (b *block) checkedFromHere(q ConsulQuery, check *Check) {
	if slices.Contains(q.Statuses, statusCritical) && (check == nil || check.HTTP == "") {
		b.l.problem(b.rangeOf("statuses"), "Critical instances without a check",
			"statuses: %q needs a check block with http in this service, "+
				"to decide whether a critical instance gets clients.",
			statusCritical)
	}
}

// texts reads a list of strings that must not be empty. noun is the word for one of them, for messages.
func (b *block) texts(name, example, noun string) []string {
	var list []string
	for _, expr := range b.items(name, example) {
		v, ok := b.l.evaluate(name, expr, cty.String, "write each "+noun+" in quotes")
		switch {
		case !ok:
		case v.AsString() == "":
			b.l.problem(expr.Range().Ptr(), "Empty value", "A %s cannot be empty. Remove it.", noun)
		case len(v.AsString()) > maxConsulName:
			b.l.tooLong(name, expr.Range().Ptr(), len(v.AsString()), maxConsulName)
		default:
			list = append(list, v.AsString())
		}
	}
	return list
}

// has reports whether the argument is present and not null.
func (b *block) has(name string) bool {
	return b.attrs[name] != nil && !isNull(b.attrs[name].Expr)
}
