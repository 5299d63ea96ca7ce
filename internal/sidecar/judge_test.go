package sidecar

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/hashicorp/consul/api"
)

const self = "10.0.0.5:21000-21255"

// proxyFor returns the sidecar of another program for an instance.
func proxyFor(id, serviceID string) *api.AgentService {
	return &api.AgentService{Kind: api.ServiceKindConnectProxy, ID: id, Service: "web-sidecar-proxy",
		Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "web", DestinationServiceID: serviceID}}
}

// marked returns s with the mark of an owner.
func marked(s *api.AgentService, owner string) *api.AgentService {
	s.Meta = map[string]string{MarkOwner: owner}
	return s
}

// A judgeCase is a case of TestJudge.
type judgeCase struct {
	name     string
	service  Service
	services []*api.AgentService
	local    string // of web-1; empty: refused
	err      error
}

// aWeb returns the registration of an instance, which change may change.
func aWeb(change func(*api.AgentService)) *api.AgentService {
	s := &api.AgentService{ID: "web-1", Service: "web", Port: 8080}
	if change != nil {
		change(s)
	}
	return s
}

// judgeAddresses are cases about the address of an instance.
func judgeAddresses() []judgeCase {
	return []judgeCase{
		{"its port on loopback", Service{}, []*api.AgentService{aWeb(nil)}, "127.0.0.1:8080", nil},
		{"absent", Service{}, nil, "", ErrAbsent},
		{"another service", Service{}, []*api.AgentService{{ID: "web-1", Service: "webs", Port: 1}}, "", ErrAbsent},
		{"at an address of its own", Service{}, []*api.AgentService{
			aWeb(func(s *api.AgentService) { s.Address = "10.0.0.5" })}, "127.0.0.1:8080", nil},
		{"at a loopback address", Service{}, []*api.AgentService{
			aWeb(func(s *api.AgentService) { s.Address = "::1" })}, "[::1]:8080", nil},
		{"several ports", Service{}, []*api.AgentService{aWeb(func(s *api.AgentService) {
			s.Port, s.Ports = 0, api.ServicePorts{{Name: "a", Port: 1}, {Name: "b", Port: 2, Default: true}}
		})}, "127.0.0.1:2", nil},
		{"configured", Service{Local: netip.MustParseAddrPort("127.0.0.2:81")},
			[]*api.AgentService{aWeb(nil)}, "127.0.0.2:81", nil},
		{"an address configured", Service{Local: netip.MustParseAddrPort("127.0.0.2:0")},
			[]*api.AgentService{aWeb(nil)}, "127.0.0.2:8080", nil},
		{"no port", Service{}, []*api.AgentService{aWeb(func(s *api.AgentService) { s.Port = 0 })}, "", ErrAddress},
		{"no port, but configured", Service{Local: netip.MustParseAddrPort("127.0.0.2:81")}, []*api.AgentService{
			aWeb(func(s *api.AgentService) { s.Port = 0 })}, "127.0.0.2:81", nil},
		{"at a socket", Service{}, []*api.AgentService{aWeb(func(s *api.AgentService) {
			s.Port, s.SocketPath = 0, "/run/web"
		})}, "", ErrAddress},
		{"the second at one address", Service{Local: netip.MustParseAddrPort("127.0.0.1:9")},
			[]*api.AgentService{aWeb(nil), {ID: "web-0", Service: "web", Port: 7}}, "", ErrAddress},
		{"the one with the port of the address", Service{Local: netip.MustParseAddrPort("127.0.0.2:8080")},
			[]*api.AgentService{aWeb(nil), {ID: "web-0", Service: "web", Port: 7}}, "127.0.0.2:8080", nil},
	}
}

// judgeSidecars are cases about other ways into the mesh than Lictor.
func judgeSidecars() []judgeCase {
	nameOnly := proxyFor("web-proxy", "")
	nameOnly.Proxy.LocalServicePort = 8080
	nameOther := proxyFor("web-proxy", "")
	nameOther.Proxy.LocalServicePort = 9090
	return []judgeCase{
		{"native", Service{}, []*api.AgentService{aWeb(func(s *api.AgentService) {
			s.Connect = &api.AgentServiceConnect{Native: true}
		})}, "", ErrNative},
		{"a gateway", Service{}, []*api.AgentService{aWeb(func(s *api.AgentService) {
			s.Kind = api.ServiceKindMeshGateway
		})}, "", ErrNative},
		{"leads back", Service{}, []*api.AgentService{
			aWeb(func(s *api.AgentService) { s.Port = 8500 })}, "", ErrLeadsBack},
		{"an envoy", Service{}, []*api.AgentService{
			aWeb(nil), proxyFor("web-1-sidecar-proxy", "web-1")}, "", ErrSidecar},
		{"an envoy elsewhere", Service{}, []*api.AgentService{aWeb(nil), proxyFor("x", "web-2")},
			"127.0.0.1:8080", nil},
		{"a proxy for the name", Service{}, []*api.AgentService{aWeb(nil), nameOnly}, "", ErrSidecar},
		{"a proxy for the name with another port", Service{}, []*api.AgentService{aWeb(nil), nameOther},
			"127.0.0.1:8080", nil},
		{"its own", Service{}, []*api.AgentService{aWeb(nil), marked(proxyFor("web-1-lictor-proxy", "web-1"), self)},
			"127.0.0.1:8080", nil},
		{"its own with a former mark", Service{}, []*api.AgentService{aWeb(nil),
			marked(proxyFor("web-1-lictor-proxy", "web-1"), "former")}, "127.0.0.1:8080", nil},
		{"another lictor", Service{}, []*api.AgentService{aWeb(nil),
			marked(proxyFor("web-1-lictor-proxy", "web-1"), "10.0.0.6:1-2")}, "", ErrSidecar},
		{"its ID without a mark", Service{}, []*api.AgentService{aWeb(nil),
			{ID: "web-1-lictor-proxy", Service: "x", Port: 1}}, "", ErrSidecar},
		{"an instance with the mark", Service{}, []*api.AgentService{marked(aWeb(nil), self)}, "127.0.0.1:8080", nil},
	}
}

func TestJudge(t *testing.T) {
	for _, tt := range append(judgeAddresses(), judgeSidecars()...) {
		l := &list{services: map[string]*api.AgentService{}, owners: []string{self, "former"}}
		for _, s := range tt.services {
			l.services[s.ID] = s
		}
		tt.service.Name = "web"
		wants, refused := l.judge([]Service{tt.service}, func(a netip.AddrPort) bool { return a.Port() == 8500 })
		w, wanted := wants["web-1"]
		switch {
		case wanted != (tt.local != ""):
			t.Errorf("%s: wanted is %v, refused %v", tt.name, wanted, refused)
		case wanted && w.local.String() != tt.local:
			t.Errorf("%s: local is %s, want %s", tt.name, w.local, tt.local)
		case !wanted && (len(refused) != 1 || !errors.Is(refused[0].Err, tt.err)):
			t.Errorf("%s: refused %v, want %v", tt.name, refused, tt.err)
		}
	}
}
