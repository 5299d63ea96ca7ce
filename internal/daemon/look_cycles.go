package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// leadBack returns a warning for each endpoint that a Lictor with this configuration would leave out on this host.
// Lictor leaves an endpoint out if it leads back to Lictor, or if no instance can have its address. leadBack also marks
// such endpoints in sights.
func leadBack(ctx context.Context, cfg *config.Config, sights []Sight) (problems hcl.Diagnostics) {
	d := cycles.New(cycles.Options{})
	d.Listen(cycleServices(cfg), adminAddrs(cfg.Admin))
	sets := make([]lb.Endpoints, len(cfg.Services))
	for i := range cfg.Services {
		sets[i] = lb.Endpoints{Service: cfg.Services[i].Name, Endpoints: endpointsSeen(&cfg.Services[i], sights)}
	}
	verdicts := d.Judge(sets)
	for i := range cfg.Services {
		s := &cfg.Services[i]
		for _, e := range sets[i].Endpoints {
			v, out := verdicts[s.Name][e.ID]
			if !out && e.Host != "" {
				v, out = nameLeadsBack(ctx, d, s, e)
			}
			if !out {
				continue
			}
			mark(sights, s.Name, e, v)
			problems = append(problems, &hcl.Diagnostic{
				Severity: hcl.DiagWarning, Summary: "Endpoint left out", Subject: s.DeclRange.Ptr(),
				Detail: fmt.Sprintf("Service %q: %s gets no clients: %s.", s.Name, e.ID, v.Text),
			})
		}
	}
	return problems
}

// endpointsSeen returns the endpoints that a service would have from all of its sources.
func endpointsSeen(s *config.Service, sights []Sight) (all []lb.Endpoint) {
	for i := range sights {
		if sights[i].service != s.Name {
			continue
		}
		for _, one := range sights[i].instances {
			if one.Out == "" {
				all = append(all, one.Endpoint)
			}
		}
	}
	if s.Static != nil {
		all = append(all, endpointsOf(*s.Static)...)
	}
	return all
}

// nameLeadsBack looks up the endpoint's host name. nameLeadsBack returns true and a verdict if Lictor must not dial any
// of the addresses. If the lookup fails, it returns false.
func nameLeadsBack(
	ctx context.Context, d *cycles.Detector, s *config.Service, e lb.Endpoint,
) (v cycles.Verdict, is bool) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", e.Host)
	if err != nil {
		return v, false
	}
	for _, a := range addrs {
		err := d.Check(s.Name, networkOf(s.Protocol), e, netip.AddrPortFrom(a, e.Addr.Port()))
		if err == nil {
			return v, false
		}
		v = cycles.Verdict{Reason: cycles.Loop, Text: err.Error()}
	}
	return v, len(addrs) > 0
}

// mark writes the verdict about an endpoint into all sights that have the endpoint.
func mark(sights []Sight, service string, e lb.Endpoint, v cycles.Verdict) {
	for i := range sights {
		if sights[i].service != service {
			continue
		}
		for j := range sights[i].instances {
			if one := &sights[i].instances[j]; one.Endpoint == e && one.Out == "" {
				one.Out, one.Detail = discovery.Out(v.Reason), v.Text
			}
		}
	}
}
