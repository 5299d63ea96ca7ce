package sidecar

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	// checkInterval is the time between two checks of a listener by the agent. An agent that restarts with its data
	// takes a listener for critical until it has checked it.
	checkInterval = 5 * time.Second
	checkTimeout  = 5 * time.Second

	// reapAfter is after how long without a listener the agent removes a registration.
	reapAfter = 10 * time.Minute

	listenerSuffix = ":listener" // makes the ID of the check of the listener from that of the registration
	healthSuffix   = ":instance" // makes the ID of the check that follows the health of the instance
)

// registrationOf returns the registration for an instance. It has the tags, the meta and the locality of the instance,
// as Consul's own sidecar_service takes them over, because peers choose subsets by them; and its weights, which
// sidecar_service does not take over.
func registrationOf(i Instance, owner string, bind netip.Addr, source *api.AgentService) *api.AgentServiceRegistration {
	meta := map[string]string{}
	maps.Copy(meta, source.Meta)
	meta[MarkOwner] = owner
	r := &api.AgentServiceRegistration{
		Kind: api.ServiceKindConnectProxy, ID: i.ID, Name: NameOf(i.Service),
		Address: bind.String(), Port: int(i.Listen.Port()),
		Tags: source.Tags, Meta: meta, Locality: source.Locality,
		Weights:   &source.Weights,
		Namespace: source.Namespace, Partition: source.Partition,
		Proxy: &api.AgentServiceConnectProxyConfig{
			DestinationServiceName: i.Service, DestinationServiceID: i.ServiceID,
			LocalServiceAddress: i.Local.Addr().String(), LocalServicePort: int(i.Local.Port()),
		},
		Checks: api.AgentServiceChecks{
			{CheckID: i.ID + listenerSuffix, Name: "Lictor listens", TCP: checkedAddress(i.Listen).String(),
				Interval: checkInterval.String(), Timeout: checkTimeout.String(), Status: api.HealthPassing,
				DeregisterCriticalServiceAfter: reapAfter.String()},
			{CheckID: i.ID + healthSuffix, Name: "Health of " + i.ServiceID, AliasService: i.ServiceID},
		},
	}
	if bind.IsUnspecified() {
		r.Address = "" // peers use the address of the node
	}
	if source.Weights == (api.AgentWeights{}) {
		r.Weights = nil
	}
	return r
}

// checkedAddress returns the address at which the agent, which is on this host, can reach a listener.
func checkedAddress(listen netip.AddrPort) netip.AddrPort {
	switch addr := listen.Addr(); {
	case !addr.IsUnspecified():
		return listen
	case addr.Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), listen.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), listen.Port())
}

// equal reports whether two registrations say the same.
func equal(a, b *api.AgentServiceRegistration) bool { return reflect.DeepEqual(a, b) }

// matches reports whether the agent's registration is what Lictor has sent.
func matches(listed *api.AgentService, sent *api.AgentServiceRegistration) bool {
	p := listed.Proxy
	return listed.Kind == sent.Kind && listed.Service == sent.Name &&
		listed.Address == sent.Address && listed.Port == sent.Port &&
		slices.Equal(listed.Tags, sent.Tags) && maps.Equal(listed.Meta, sent.Meta) &&
		(sent.Weights == nil || listed.Weights == *sent.Weights) &&
		p != nil && p.DestinationServiceName == sent.Proxy.DestinationServiceName &&
		p.DestinationServiceID == sent.Proxy.DestinationServiceID &&
		p.LocalServiceAddress == sent.Proxy.LocalServiceAddress && p.LocalServicePort == sent.Proxy.LocalServicePort
}
