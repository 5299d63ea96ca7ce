package daemon

import (
	"net"
	"net/netip"
	"os"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
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
	var api []lb.Addr
	for _, cfg := range configs {
		services = append(services, cycleServices(cfg)...)
		api = append(api, adminAddrs(cfg.Admin)...)
	}
	for _, one := range d.exposed.instances() {
		services = append(services, cycles.Service{Name: one.name, Network: lb.TCP,
			Listen: []lb.Addr{{AddrPort: one.Listen}}})
	}
	if d.proxier != nil { // the proxier knows the ports that the kernel has chosen
		for _, l := range d.proxier.Listeners() {
			one := cycles.Service{Name: l.Service, Network: networkBy(l.Protocol)}
			one.Listen = []lb.Addr{l.Addr}
			services = append(services, one)
		}
	}
	if d.admin != nil && d.admin.listener != nil {
		api = append(api, addrOf(d.admin.listener.Addr()))
	}
	d.cycles.Listen(services, api)
}

// adminAddrs returns where the admin API may listen. The default sockets count in any case: another Lictor may listen
// there.
func adminAddrs(cfg config.Admin) (all []lb.Addr) {
	for _, path := range append(admin.DefaultSockets(os.Getenv), cfg.Socket) {
		if path != "" {
			all = append(all, lb.Addr{Path: path})
		}
	}
	if cfg.TCP.IsValid() {
		all = append(all, lb.Addr{AddrPort: cfg.TCP})
	}
	return all
}

// addrOf converts the address of a listener.
func addrOf(a net.Addr) lb.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return lb.Addr{AddrPort: a.AddrPort()}
	case *net.UnixAddr:
		return lb.Addr{Path: a.Name}
	}
	return lb.Addr{}
}

// cycleServices returns the services of a configuration for the cycle detector.
func cycleServices(cfg *config.Config) (services []cycles.Service) {
	for _, s := range cfg.Services {
		one := cycles.Service{Name: s.Name, Network: networkOf(s.Protocol)}
		for _, l := range s.Listen {
			one.Listen = append(one.Listen, lb.Addr{AddrPort: l.Addr, Path: l.Path})
		}
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
