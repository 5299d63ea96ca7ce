package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// This file turns a discovery chain into tiers. The code in this file is pure.
//
// Consul compiles the discovery chain of a service from configuration entries. For a service of layer 4, the chain is
// one resolver with a target, and with more targets to fail over to in order. Routers and splitters need HTTP.

// A discoveryChain holds the parts of a discovery chain that Lictor uses.
type discoveryChain struct {
	Datacenter string // the datacenter for which Consul has compiled the chain
	StartNode  string
	Nodes      map[string]*chainNode
	Targets    map[string]*chainTarget
}

type chainNode struct {
	Type     string
	Resolver *struct {
		Target   string
		Failover *struct{ Targets []string }
	}
}

type chainTarget struct {
	Service, ServiceSubset, Namespace, Partition, Datacenter, Peer, SNI string

	MeshGateway struct{ Mode api.MeshGatewayMode }
	Subset      struct {
		Filter      string
		OnlyPassing bool
	}
}

// chainIn parses the answer for a discovery chain.
func chainIn(body []byte) (*discoveryChain, error) {
	if consul.TooManyElements(body) {
		return nil, consul.ErrTooManyElements
	}
	var answer struct{ Chain *discoveryChain }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("answer cannot be read: %w", err)
	}
	if answer.Chain == nil {
		return nil, errNoChain
	}
	return answer.Chain, nil
}

var errNoChain = errors.New("answer is not a discovery chain")

// A ChainError says why Lictor cannot follow a discovery chain.
type ChainError struct {
	Service string // Consul's name of the service that has the chain
	Reason  string
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("lictor cannot follow the discovery chain of %q: %s", e.Service, e.Reason)
}

// A target is where a discovery chain leads to. Targets can be compared.
type target struct {
	service     string // Consul's name
	subset      string // empty: the whole service
	filter      string // filter of the subset
	datacenter  string // empty: that of the query for the chain
	sni         string // server name by which gateways know the target; empty: unknown
	onlyPassing bool   // instances with a warning do not count
	remote      bool   // the datacenter is not that of the agent
}

// name returns the name of t, for people.
func (t *target) name() string {
	name := t.service
	if t.subset != "" {
		name = t.subset + "." + name
	}
	if t.datacenter != "" {
		name += " in datacenter " + t.datacenter
	}
	return consul.OneLine(name)
}

// A home is where Lictor asks, and what Consul's answers therefore cover.
type home struct {
	datacenter           string // the agent's; empty: unknown
	asked                string // Query.Datacenter of the query for the chain
	namespace, partition string // of all queries; empty: the default one
}

// maxTargets is how many targets a discovery chain may have. Each target is a query.
const maxTargets = 32

// A LeftOut is a target to fail over to that Lictor cannot reach.
type LeftOut struct {
	Name   string // such as "web in datacenter dc2"
	Reason string // the end of a sentence about the target
}

// compile returns the targets of d in order of preference, of which there is at least one, and those to fail over to
// that are left out. If Lictor cannot follow d, the error is a *ChainError for service. Any other error means that d is
// damaged.
func (d *discoveryChain) compile(service string, h home) (targets []target, left []LeftOut, err error) {
	cannot := func(format string, args ...any) ([]target, []LeftOut, error) {
		return nil, nil, &ChainError{service, consul.OneLine(fmt.Sprintf(format, args...))}
	}
	start := d.Nodes[d.StartNode]
	switch {
	case start == nil:
		return nil, nil, errNoChain
	case start.Type != api.DiscoveryGraphNodeTypeResolver:
		return cannot("it begins with a %s, which needs HTTP: delete the config entry service-%s for it, "+
			"or use a proxy for HTTP", start.Type, start.Type)
	case start.Resolver == nil:
		return nil, nil, errNoChain
	}
	ids := []string{start.Resolver.Target}
	if f := start.Resolver.Failover; f != nil {
		ids = append(ids, f.Targets...)
	}
	if len(ids) > maxTargets {
		return cannot("it has %d targets, and Lictor follows at most %d", len(ids), maxTargets)
	}
	for i, id := range ids {
		t := d.Targets[id]
		if t == nil || t.Service == "" {
			return nil, nil, errNoChain
		}
		one := d.target(t, h)
		switch why := t.outOfReach(h, one.remote); {
		case why != "" && i == 0:
			return cannot("its target %q %s", one.name(), why)
		case why != "":
			left = append(left, LeftOut{one.name(), consul.OneLine(why)})
		case !slices.Contains(targets, one):
			targets = append(targets, one)
		}
	}
	return targets, left, nil
}

// target returns the target t of d.
func (d *discoveryChain) target(t *chainTarget, h home) target {
	own := h.datacenter
	if h.asked == "" {
		own = d.Datacenter
	}
	one := target{service: t.Service, subset: t.ServiceSubset, filter: t.Subset.Filter, datacenter: t.Datacenter,
		onlyPassing: t.Subset.OnlyPassing, remote: t.Datacenter != own}
	if isServerName(t.SNI) {
		one.sni = t.SNI
	}
	if t.Datacenter == d.Datacenter {
		one.datacenter = h.asked
	}
	return one
}

// outOfReach returns why Lictor cannot reach the instances of t, as the end of a sentence about t. It returns an empty
// text if it can.
func (t *chainTarget) outOfReach(h home, remote bool) string {
	mode := t.MeshGateway.Mode
	byGateway := mode == api.MeshGatewayModeLocal || mode == api.MeshGatewayModeRemote
	switch {
	case t.Peer != "":
		return fmt.Sprintf("is in the cluster peering %q, and Lictor cannot reach the mesh of a peer", t.Peer)
	case orDefault(t.Namespace) != orDefault(h.namespace) || orDefault(t.Partition) != orDefault(h.partition):
		return fmt.Sprintf("is in namespace %q of partition %q, and Lictor asks for another one",
			t.Namespace, t.Partition)
	case byGateway && remote:
		return fmt.Sprintf("is reached through mesh gateways (mode %s), which Lictor does not use: "+
			"set MeshGateway.Mode to none for it, if its instances can be reached directly", mode)
	}
	return ""
}

// chained returns the tiers of w, which lead to targets. nil targets mean that the chain is not known yet, so there are
// no tiers.
//
// As Consul tells Envoy, an instance with a warning counts, with its weight for warnings, unless its subset says that
// only passing instances do. And an instance of another datacenter is reached at its wan address. Query.Statuses and
// Query.Address take precedence.
func (w *Watch) chained(targets []target) []Tier {
	var tiers []Tier
	for _, t := range targets {
		q := w.Query
		q.Service, q.sni, q.Filter, q.Datacenter = t.service, t.sni, both(t.filter, q.Filter), t.datacenter
		if len(q.Statuses) == 0 && !t.onlyPassing {
			q.Statuses = []string{api.HealthPassing, api.HealthWarning}
		}
		if t.remote && q.Address == "" {
			q.Address = "wan"
		}
		tiers = append(tiers, Tier{Query: q, Guard: w.Guard, name: t.name()})
	}
	return tiers
}

// both returns a filter for instances that pass a and b. An empty filter lets all pass.
func both(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return "(" + a + ") and (" + b + ")"
}
