package sidecar

import (
	"encoding/json"
	"maps"
	"net/netip"
	"reflect"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	checkInterval = 10 * time.Second // between two checks of the listener, as Consul's default for sidecars
	checkTimeout  = 5 * time.Second

	// reapAfter is after how long without a listener the agent removes a registration. It is Consul's minimum, because
	// it bounds how long the registration of a dead Lictor keeps another one away.
	reapAfter = time.Minute
)

// registrationOf returns the registration for an instance. It has the tags, the meta and the locality of the instance,
// as Consul's own sidecar_service takes them over, because peers choose subsets by them; and its weights, which
// sidecar_service does not take over.
func registrationOf(i Instance, owner string, bind netip.Addr, source *api.AgentService) *api.AgentServiceRegistration {
	meta := map[string]string{}
	maps.Copy(meta, source.Meta)
	meta[MarkOwner] = owner
	r := &api.AgentServiceRegistration{
		Kind: api.ServiceKindConnectProxy, ID: i.ID, Name: i.Service + nameSuffix,
		Address: bind.String(), Port: int(i.Listen.Port()),
		Tags: source.Tags, Meta: meta, Locality: source.Locality,
		Weights:   &source.Weights,
		Namespace: source.Namespace, Partition: source.Partition,
		Proxy: &api.AgentServiceConnectProxyConfig{
			DestinationServiceName: i.Service, DestinationServiceID: i.ServiceID,
			LocalServiceAddress: i.Local.Addr().String(), LocalServicePort: int(i.Local.Port()),
		},
		Checks: api.AgentServiceChecks{
			{CheckID: i.ID + ":listener", Name: "Lictor listens", TCP: checkedAddress(i.Listen).String(),
				Interval: checkInterval.String(), Timeout: checkTimeout.String(), Status: api.HealthPassing,
				DeregisterCriticalServiceAfter: reapAfter.String()},
			{CheckID: i.ID + ":service", Name: "Health of " + i.ServiceID, AliasService: i.ServiceID},
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

// fingerprint returns a text that changes when the agent's registration changes.
func fingerprint(s *api.AgentService) string {
	if s == nil {
		return ""
	}
	without := *s
	without.CreateIndex, without.ModifyIndex, without.ContentHash = 0, 0, ""
	text, err := json.Marshal(without)
	if err != nil {
		return ""
	}
	return string(text)
}
