package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/accesslog"
)

// A looker tells what a query comes to now; [discovery.Consul] does.
type looker interface {
	Look(ctx context.Context, q discovery.Query) ([]discovery.Instance, error)
}

// Look asks what a daemon with the configuration would find now: what each service would be served by, instance by
// instance; whether Consul lets us know that; and whether the addresses to listen at are free. It serves nothing.
func Look(ctx context.Context, cfg *config.Config) (all []Sight, problems hcl.Diagnostics) {
	consul, err := discovery.NewConsul(consulOptions(cfg.Consul, nil))
	if err != nil {
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Consul cannot be asked", Detail: err.Error()}
		return nil, hcl.Diagnostics{d}
	}
	for _, s := range cfg.Services {
		seen, more := lookAt(ctx, s, consul)
		problems = append(append(problems, more...), taken(s)...)
		all = append(all, seen...)
	}
	return all, append(problems, leadBack(ctx, cfg, all)...)
}

// A Sight is what one query of a service comes to now.
type Sight struct {
	service   string
	query     config.ConsulQuery
	instances []discovery.Instance
}

// lookAt asks for what the service's queries come to.
func lookAt(ctx context.Context, s config.Service, consul looker) (all []Sight, problems hcl.Diagnostics) {
	for _, q := range queriesOf(s) {
		instances, err := consul.Look(ctx, queryOf(q))
		if d := lookProblem(s, q, instances, err); d != nil {
			problems = append(problems, d)
		}
		if len(instances) > 0 {
			all = append(all, Sight{s.Name, q, instances})
		}
	}
	return all, problems
}

// lookProblem returns what is wrong with the answer to a query; nil if nothing is.
func lookProblem(
	s config.Service, q config.ConsulQuery, instances []discovery.Instance, err error,
) *hcl.Diagnostic {
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Detail: fmt.Sprintf("Service %q: %v.", s.Name, err),
		Subject: s.DeclRange.Ptr()}
	var refused *discovery.RefusedError
	switch {
	case errors.As(err, &refused):
		d.Summary, d.Detail = "Query refused by Consul", fmt.Sprintf("Service %q: %s.", s.Name, refused.Reason)
		if q.Filter != "" {
			d.Subject = q.FilterRange.Ptr()
		}
	case errors.Is(err, discovery.ErrNoToken):
		d.Severity, d.Summary = hcl.DiagWarning, "No instances"
	case errors.As(err, new(*discovery.HiddenError)):
		d.Severity, d.Summary = hcl.DiagWarning, "Instances are hidden"
	case err != nil:
		d.Summary = "Not answered by Consul"
	case len(instances) == 0:
		d.Severity, d.Summary = hcl.DiagWarning, "No instances"
		d.Detail = fmt.Sprintf("Service %q: Consul knows no instance that its query is for (%s). "+
			"Is the name right, and are the tags and the filter?", s.Name, whatOf(q))
	default:
		return nil
	}
	return d
}

// whatOf says what a query is for.
func whatOf(q config.ConsulQuery) string {
	parts := []string{fmt.Sprintf("consul service %q", q.Service)}
	if q.PreparedQuery != "" {
		parts = []string{fmt.Sprintf("prepared query %q", q.PreparedQuery)}
	}
	if q.Datacenter != "" {
		parts = append(parts, fmt.Sprintf("datacenter %q", q.Datacenter))
	}
	if q.Peer != "" {
		parts = append(parts, fmt.Sprintf("peer %q", q.Peer))
	}
	return strings.Join(parts, ", ")
}

// Describe returns a line for the query, and one for each instance.
func (s *Sight) Describe() []string {
	in := 0
	var lines []string
	for _, one := range s.instances {
		if one.Out == "" {
			in++
			lines = append(lines, fmt.Sprintf("  in   %s  %s", one.ID, one.Address()))
		} else {
			lines = append(lines, fmt.Sprintf("  out  %s  %s: %s", one.ID, one.Out, one.Detail))
		}
	}
	head := fmt.Sprintf("%s: %d of %s (%s)", s.service, in, config.Plural(len(s.instances), "instance"),
		whatOf(s.query))
	return append([]string{head}, lines...)
}

// CheckHost returns what of this host would keep a daemon with the configuration from starting: an access log that
// cannot be opened. That this user may not write there is a warning, for Lictor may run as another one. It changes
// nothing.
func CheckHost(cfg *config.Config) hcl.Diagnostics {
	if cfg.AccessLog == nil {
		return nil
	}
	err := accesslog.Check(accesslog.Options(*cfg.AccessLog))
	if err == nil {
		return nil
	}
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Access log cannot be opened", Detail: err.Error() + "."}
	if errors.Is(err, fs.ErrPermission) {
		d.Severity = hcl.DiagWarning
		d.Detail = err.Error() + " for this user. If lictor runs as another one, all may be well."
	}
	return hcl.Diagnostics{d}
}

// InUse returns the addresses of services that something listens at already, such as
// "tcp 127.0.0.1:80 (service "web")".
func InUse(cfg *config.Config) (all []string) {
	for _, s := range cfg.Services {
		for _, addr := range s.Listen {
			if errors.Is(tryListen(s.Protocol, addr), syscall.EADDRINUSE) {
				all = append(all, fmt.Sprintf("%s %s (service %q)", s.Protocol, addr, s.Name))
			}
		}
	}
	return all
}

// taken warns of addresses of the service that something listens at already: another program, or a lictor with this
// configuration.
func taken(s config.Service) hcl.Diagnostics {
	var problems hcl.Diagnostics
	for _, addr := range s.Listen {
		err := tryListen(s.Protocol, addr)
		if err == nil {
			continue
		}
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Address cannot be used",
			Detail: fmt.Sprintf("Service %q: %v%s.", s.Name, err, hint(err)), Subject: s.DeclRange.Ptr()}
		if errors.Is(err, syscall.EADDRINUSE) {
			d.Severity, d.Summary = hcl.DiagWarning, "Address in use"
			d.Detail = fmt.Sprintf("Service %q: something listens at %s %s already. "+
				"If it is a lictor with this configuration, all is well.", s.Name, s.Protocol, addr)
		}
		problems = append(problems, d)
	}
	return problems
}

// tryListen listens at addr for a moment, without taking a client.
func tryListen(p config.Protocol, addr netip.AddrPort) error {
	if p == config.UDP {
		conn, err := net.ListenPacket("udp", addr.String())
		if err != nil {
			return err
		}
		return conn.Close()
	}
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		return err
	}
	return l.Close()
}
