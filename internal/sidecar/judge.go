package sidecar

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hashicorp/consul/api"
)

// A want is an instance that is to be exposed.
type want struct {
	service Service
	source  *api.AgentService // the instance as the agent has it
	local   netip.AddrPort
}

// A list is what the agent has registered, as far as it matters.
type list struct {
	services map[string]*api.AgentService // by ID
	owners   []string                     // marks of this Lictor: that of now, and former ones
	dead     map[string]bool              // IDs of registrations of other Lictors that do not listen any more
}

// owns reports whether a registration is one of this Lictor.
func (l *list) owns(s *api.AgentService) bool {
	return s.Kind == api.ServiceKindConnectProxy && slices.Contains(l.owners, s.Meta[MarkOwner])
}

// own returns this Lictor's registration for an instance, or nil.
func (l *list) own(serviceID string) *api.AgentService {
	if s := l.services[serviceID+idSuffix]; s != nil && l.owns(s) {
		return s
	}
	return nil
}

// rival returns the sidecar of another program for an instance, or nil.
func (l *list) rival(s *api.AgentService, local netip.AddrPort) *api.AgentService {
	if taken := l.services[s.ID+idSuffix]; taken != nil && !l.owns(taken) && !l.dead[taken.ID] {
		return taken
	}
	var found *api.AgentService
	for _, p := range l.services {
		if p.Kind != api.ServiceKindConnectProxy || p.Proxy == nil || l.owns(p) || l.dead[p.ID] {
			continue
		}
		serves := p.Proxy.DestinationServiceID == s.ID
		if p.Proxy.DestinationServiceID == "" { // a proxy for the name; only its local port tells the instance
			serves = p.Proxy.DestinationServiceName == s.Service && p.Proxy.LocalServicePort == int(local.Port())
		}
		if serves && (found == nil || p.ID < found.ID) {
			found = p
		}
	}
	return found
}

// judge returns the instances that are to be exposed, by ID, and why others are not.
func (l *list) judge(services []Service, leadsBack func(netip.AddrPort) bool) (map[string]want, []Refusal) {
	wants := map[string]want{}
	var refused []Refusal
	for _, service := range services {
		instances := l.instances(service)
		if len(instances) == 0 {
			refused = append(refused, Refusal{Service: service.Name, Err: ErrAbsent})
		}
		fixed := service.Local.Addr().IsValid() && service.Local.Port() != 0
		for i, s := range instances {
			w := want{service: service, source: s}
			err := error(nil)
			if fixed && i > 0 {
				err = fmt.Errorf("%w: its service has one local address, which is taken to be that of %q", ErrAddress,
					instances[0].ID)
			} else {
				w.local, err = localOf(service, s)
			}
			if err == nil {
				err = l.examine(w, leadsBack)
			}
			if err != nil {
				refused = append(refused, Refusal{Service: service.Name, ServiceID: s.ID, Err: err})
				continue
			}
			wants[s.ID] = w
		}
	}
	return wants, refused
}

// instances returns the instances of a service, sorted by ID. If the service has a local address with a port, an
// instance with that port comes first.
func (l *list) instances(service Service) []*api.AgentService {
	var all []*api.AgentService
	for _, s := range l.services {
		if s.Service == service.Name && !l.owns(s) {
			all = append(all, s)
		}
	}
	other := func(s *api.AgentService) int {
		if s.DefaultPort() == int(service.Local.Port()) {
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b *api.AgentService) int {
		return cmp.Or(cmp.Compare(other(a), other(b)), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// examine returns nil if an instance may be exposed, and otherwise the reason.
func (l *list) examine(w want, leadsBack func(netip.AddrPort) bool) error {
	s := w.source
	switch rival := l.rival(s, w.local); {
	case s.Kind != api.ServiceKindTypical:
		return fmt.Errorf("%w: it is a %s", ErrNative, s.Kind)
	case s.Connect != nil && s.Connect.Native:
		return fmt.Errorf("%w: it is registered as connect native", ErrNative)
	case rival != nil && rival.Meta[MarkOwner] != "":
		return fmt.Errorf("%w: %q of another lictor, %q", ErrSidecar, rival.ID, rival.Meta[MarkOwner])
	case rival != nil:
		return fmt.Errorf("%w: %q", ErrSidecar, rival.ID)
	case leadsBack(w.local):
		return fmt.Errorf("%w: %s", ErrLeadsBack, w.local)
	}
	return nil
}

// localOf returns where the instance accepts connections.
func localOf(service Service, s *api.AgentService) (netip.AddrPort, error) {
	addr, port := service.Local.Addr(), service.Local.Port()
	if !addr.IsValid() {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if own, err := netip.ParseAddr(s.Address); err == nil && own.IsLoopback() {
			addr = own
		}
	}
	if port != 0 {
		return netip.AddrPortFrom(addr, port), nil
	}
	n := s.DefaultPort()
	switch {
	case n == 0 && s.SocketPath != "":
		return netip.AddrPort{}, fmt.Errorf("%w: it is registered at a unix socket", ErrAddress)
	case n < 1 || n > 65535:
		return netip.AddrPort{}, fmt.Errorf("%w: it is registered without a port", ErrAddress)
	}
	return netip.AddrPortFrom(addr, uint16(n)), nil
}
