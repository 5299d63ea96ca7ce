package daemon

import (
	"net"
	"net/netip"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// reconsider judges all endpoints again. The cycle detector calls it when the set of endpoints that may lead back to
// this process has changed.
func (d *Daemon) reconsider() {
	if c := d.consul.Load(); c != nil {
		c.Recount()
	}
	d.sets.Reconsider()
}

// detect tells the cycle detector where this process listens, or may listen soon: the listeners in configs and those
// that are open. Endpoints must not lead back to any of them. During a reload, configs are the old and the new
// configuration.
func (d *Daemon) detect(configs ...*config.Config) {
	var services []cycles.Service
	var api []netip.AddrPort
	for _, cfg := range configs {
		services = append(services, cycleServices(cfg)...)
		if cfg.Admin.TCP.IsValid() {
			api = append(api, cfg.Admin.TCP)
		}
	}
	if d.proxier != nil { // the proxier knows the ports that the kernel has chosen
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

// cycleServices returns the services of a configuration for the cycle detector.
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

// admit returns nil if the proxier may dial addr, and otherwise the reason against it.
func (d *Daemon) admit(service string, p proxy.Protocol, e lb.Endpoint, addr netip.AddrPort) error {
	return d.cycles.Check(service, networkBy(p), e, addr)
}

func networkBy(p proxy.Protocol) lb.Network {
	if p == proxy.UDP {
		return lb.UDP
	}
	return lb.TCP
}
