package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/mesh"
	"github.com/lictor-proxy/lictor/internal/sidecar"
	"github.com/lictor-proxy/lictor/lb"
)

// lookAtExposed returns a sight for each exposed service, and what keeps its instances out of the mesh: there is none
// at this agent, another sidecar serves it, the token may not register a sidecar, or no port is free. Certificates and
// intentions are for tryIdentities.
func lookAtExposed(ctx context.Context, cfg *config.Config, own []Listener) (all []Sight, problems hcl.Diagnostics) {
	if len(cfg.Expose) == 0 {
		return nil, nil
	}
	client, err := consul.New(agentOptions(cfg.Consul))
	if err != nil {
		return nil, nil // Look reports it
	}
	defer client.CloseIdle()
	r := sidecar.New(sidecar.Options{Consul: client, Bind: cfg.Mesh.Bind, Ports: portsOf(cfg.Mesh)})
	services := make([]sidecar.Service, 0, len(cfg.Expose))
	for _, e := range cfg.Expose {
		services = append(services, sidecar.Service{Name: e.Name, Local: e.Local})
	}
	r.Apply(services)
	instances, refused, filtered, err := r.Preview(ctx)
	if err != nil {
		return nil, hcl.Diagnostics{exposeProblem(&cfg.Expose[0], hcl.DiagError, "Not answered by the agent",
			fmt.Sprintf("the agent of this host does not list its services: %v.", err))}
	}
	for i := range cfg.Expose {
		e := &cfg.Expose[i]
		sight, found := sightOf(e, instances, refused, filtered)
		all, problems = append(all, sight), append(problems, found...)
		problems = append(problems, mayNotRegister(ctx, client, e)...)
	}
	if d := noPort(cfg, own, len(instances)); d != nil {
		problems = append(problems, d)
	}
	return all, problems
}

// sightOf returns what there is of an exposed service at the agent.
func sightOf(
	e *config.Expose, instances []sidecar.Instance, refused []sidecar.Refusal, filtered bool,
) (s Sight, problems hcl.Diagnostics) {
	s = Sight{service: config.ExposedName(e.Name, 1), what: fmt.Sprintf("exposed to the mesh as %q", e.Name)}
	for _, i := range instances {
		if i.Service == e.Name {
			s.instances = append(s.instances, discovery.Instance{Endpoint: lb.Endpoint{ID: i.ServiceID, Addr: i.Local}})
		}
	}
	for _, r := range refused {
		switch {
		case r.Service != e.Name:
		case errors.Is(r.Err, sidecar.ErrAbsent) && filtered:
			problems = append(problems, exposeProblem(e, hcl.DiagWarning, "Instances are hidden", fmt.Sprintf(
				"the token may not read all services of this agent. Give it service:write for %q.", e.Name)))
		case errors.Is(r.Err, sidecar.ErrAbsent):
			problems = append(problems, exposeProblem(e, hcl.DiagWarning, "No instances", fmt.Sprintf("%v. Register "+
				"the service at the agent of this host.", r.Err)))
		default:
			problems = append(problems, exposeProblem(e, hcl.DiagWarning, "Not exposed",
				fmt.Sprintf("%s: %v.", r.ServiceID, r.Err)))
		}
	}
	return s, problems
}

// mayNotRegister returns a problem for each name that the token may not write, of the service and of its sidecar. There
// is none if Consul does not say, as without ACLs.
func mayNotRegister(ctx context.Context, client *consul.Client, e *config.Expose) (problems hcl.Diagnostics) {
	for _, name := range []string{e.Name, sidecar.NameOf(e.Name)} {
		if may, err := client.MayWrite(ctx, name); err == nil && !may {
			problems = append(problems, exposeProblem(e, hcl.DiagError, "No right to register",
				fmt.Sprintf("the token lacks service:write for %q.", name)))
		}
	}
	return problems
}

// noPort returns a problem if the range of ports has not as many free ones as instances need.
func noPort(cfg *config.Config, own []Listener, need int) *hcl.Diagnostic {
	free, last := 0, error(nil)
	for n := cfg.Mesh.Ports.First; n <= cfg.Mesh.Ports.Last && free < max(need, 1); n++ {
		at := netip.AddrPortFrom(cfg.Mesh.Bind, uint16(n))
		err := tryListen(config.TCP, config.Listener{Addr: at}, own)
		switch {
		case err == nil:
			free++
			continue
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Address cannot be used",
				Detail: fmt.Sprintf("bind: %v%s.", err, hint(err))}
		}
		last = err
	}
	if last == nil || free >= max(need, 1) {
		return nil
	}
	d := &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "No free port", Detail: fmt.Sprintf("ports: of %s at %s, "+
		"%d can be used, and %d are needed: %v.", cfg.Mesh.Ports, cfg.Mesh.Bind, free, max(need, 1), last)}
	if len(own) == 0 {
		d.Detail += " Ignore this if a lictor with this configuration has them."
	}
	return d
}

// noIntentions returns a problem for each exposed service whose intentions Consul does not give.
func noIntentions(cfg *config.Config, state *mesh.State) (problems hcl.Diagnostics) {
	for i := range cfg.Expose {
		e := &cfg.Expose[i]
		if got := intentionsOf(state, e.Name); !got.Known {
			problems = append(problems, exposeProblem(e, hcl.DiagError, "Intentions cannot be read",
				fmt.Sprintf("%s. The token needs intentions = \"read\" for %q, which service:write includes.",
					got.Error, e.Name)))
		}
	}
	return problems
}

func exposeProblem(e *config.Expose, severity hcl.DiagnosticSeverity, summary, detail string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: severity, Summary: summary, Subject: e.DeclRange.Ptr(),
		Detail: fmt.Sprintf("Exposed service %q: %s", e.Name, detail)}
}
