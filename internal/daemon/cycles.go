package daemon

import (
	"net"
	"net/netip"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// reconsider judges all endpoints anew. It is called when more or fewer of them may lead back than before, though their
// sets are the same.
func (d *Daemon) reconsider() {
	if c := d.consul.Load(); c != nil {
		c.Recount()
	}
	d.sets.Reconsider()
}

// detect makes what this process listens for known, as the configurations say and as it is by now: no endpoint may lead
// back to any of that. During a reload that is what both configurations say.
func (d *Daemon) detect(configs ...*config.Config) {
	var services []cycles.Service
	var api []netip.AddrPort
	for _, cfg := range configs {
		services = append(services, cycleServices(cfg)...)
		if cfg.Admin.TCP.IsValid() {
			api = append(api, cfg.Admin.TCP)
		}
	}
	if d.proxier != nil { // which knows the ports that the kernel has chosen
		for _, l := range d.proxier.Listeners() {
			one := cycles.Service{Name: l.Service, Network: networkBy(l.Protocol), Listen: []netip.AddrPort{l.Addr}}
			services = append(services, one)
		}
	}
	if d.admin != nil && d.admin.listener != nil {
		if addr, ok := d.admin.listener.Addr().(*net.TCPAddr); ok {
			api = append(api, addr.AddrPort())
		}
	}
	d.cycles.Listen(services, api)
}

// cycleServices are the services of a configuration as the detector takes them.
func cycleServices(cfg *config.Config) (services []cycles.Service) {
	for _, s := range cfg.Services {
		one := cycles.Service{Name: s.Name, Network: networkOf(s.Protocol), Listen: s.Listen}
		if s.Static != nil {
			one.Static = endpointsOf(*s.Static)
		}
		services = append(services, one)
	}
	return services
}

func networkOf(p config.Protocol) lb.Network {
	if p == config.UDP {
		return lb.UDP
	}
	return lb.TCP
}

// admit returns why the proxier must not dial an address, or nil.
func (d *Daemon) admit(service string, p proxy.Protocol, e lb.Endpoint, addr netip.AddrPort) error {
	return d.cycles.Check(service, networkBy(p), e, addr)
}

func networkBy(p proxy.Protocol) lb.Network {
	if p == proxy.UDP {
		return lb.UDP
	}
	return lb.TCP
}
