package main

import (
	"net"
	"slices"
	"strconv"
	"strings"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	aggregate "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	rbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	prefix       = "type.googleapis.com/envoy.config."
	clusterType  = prefix + "cluster.v3.Cluster"
	listenerType = prefix + "listener.v3.Listener"
	endpointType = prefix + "endpoint.v3.ClusterLoadAssignment"
)

// A view is what the agent has said.
type view struct {
	clusters  map[string]*cluster.Cluster
	endpoints map[string]*endpoint.ClusterLoadAssignment
	listeners map[string]*listener.Listener
	asked     map[string]bool // the clusters whose endpoints are subscribed to
}

func newView() *view {
	return &view{clusters: map[string]*cluster.Cluster{}, endpoints: map[string]*endpoint.ClusterLoadAssignment{},
		listeners: map[string]*listener.Listener{}, asked: map[string]bool{}}
}

func (v *view) apply(answer *discovery.DeltaDiscoveryResponse) (err error) {
	switch answer.TypeUrl {
	case clusterType:
		err = merge(v.clusters, answer)
	case listenerType:
		err = merge(v.listeners, answer)
	case endpointType:
		err = merge(v.endpoints, answer)
	}
	return err
}

// merge takes over what has changed.
func merge[T any, P interface {
	*T
	proto.Message
}](all map[string]P, answer *discovery.DeltaDiscoveryResponse) error {
	for _, name := range answer.RemovedResources {
		delete(all, name)
	}
	for _, r := range answer.Resources {
		one := P(new(T))
		if err := r.Resource.UnmarshalTo(one); err != nil {
			return err
		}
		all[r.Name] = one
	}
	return nil
}

// wanted returns the clusters whose endpoints must be asked for now, and those of which no more.
func (v *view) wanted() (fresh, gone []string) {
	for name, c := range v.clusters {
		if c.GetType() == cluster.Cluster_EDS && !v.asked[name] {
			fresh, v.asked[name] = append(fresh, name), true
		}
	}
	for name := range v.asked {
		if v.clusters[name] == nil {
			gone = append(gone, name)
			delete(v.asked, name)
			delete(v.endpoints, name)
		}
	}
	return fresh, gone
}

// A target is a cluster to which Envoy would send connections.
type target struct {
	ServerName string   `json:"server_name"`
	Identities []string `json:"identities"`
	Endpoints  []string `json:"endpoints"` // the healthy ones, sorted
}

// upstreams returns the targets of each upstream, in the order of failover.
func (v *view) upstreams() map[string][]target {
	all := map[string][]target{}
	for name, l := range v.listeners {
		upstream, _, _ := strings.Cut(name, ":")
		for _, chain := range l.FilterChains {
			for _, f := range chain.Filters {
				var to tcpproxy.TcpProxy
				if decode(f.GetTypedConfig(), &to) && l.TrafficDirection == core.TrafficDirection_OUTBOUND {
					all[upstream] = v.targets(to.GetCluster())
				}
			}
		}
	}
	return all
}

// clients returns the rules that say which clients Envoy serves, as JSON.
func (v *view) clients() ([]byte, error) {
	for _, l := range v.listeners {
		for _, chain := range l.FilterChains {
			for _, f := range chain.Filters {
				var of rbac.RBAC
				if decode(f.GetTypedConfig(), &of) && l.TrafficDirection == core.TrafficDirection_INBOUND {
					return protojson.Marshal(of.GetRules())
				}
			}
		}
	}
	return nil, nil
}

// targets returns the targets of a cluster, which may be a list of others.
func (v *view) targets(name string) []target {
	c := v.clusters[name]
	if c == nil {
		return nil
	}
	var several aggregate.ClusterConfig
	if decode(c.GetClusterType().GetTypedConfig(), &several) {
		var all []target
		for _, each := range several.Clusters {
			all = append(all, v.targets(each)...)
		}
		return all
	}
	t := target{Identities: []string{}, Endpoints: []string{}}
	var context tls.UpstreamTlsContext
	if decode(c.GetTransportSocket().GetTypedConfig(), &context) {
		t.ServerName = context.Sni
		for _, san := range context.GetCommonTlsContext().GetValidationContext().GetMatchTypedSubjectAltNames() {
			t.Identities = append(t.Identities, san.GetMatcher().GetExact())
		}
	}
	for _, group := range v.endpoints[name].GetEndpoints() {
		for _, e := range group.LbEndpoints {
			if e.HealthStatus != core.HealthStatus_UNHEALTHY {
				at := e.GetEndpoint().GetAddress().GetSocketAddress()
				port := strconv.Itoa(int(at.GetPortValue()))
				t.Endpoints = append(t.Endpoints, net.JoinHostPort(at.GetAddress(), port))
			}
		}
	}
	slices.Sort(t.Endpoints)
	return []target{t}
}

// decode reports whether m has the type of to, and reads it.
func decode(m *anypb.Any, to proto.Message) bool {
	return m != nil && m.MessageIs(to) && m.UnmarshalTo(to) == nil
}
