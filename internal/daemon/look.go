package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/accesslog"
	"github.com/lictor-proxy/lictor/internal/unixsocket"
)

// A looker returns the current result of a query, and the tiers of a discovery chain. [discovery.Consul] is one.
type looker interface {
	Look(ctx context.Context, q discovery.Query) ([]discovery.Instance, error)
	LookChain(ctx context.Context, w discovery.Watch) ([]discovery.Tier, []discovery.LeftOut, error)
	OwnZone(ctx context.Context, q discovery.Query) (zone, problem string)
}

// A Listener is an address at which a running Lictor listens.
type Listener struct {
	Protocol config.Protocol
	At       config.Listener
}

// covers reports whether a reload could move the listener to another address or path.
func (l Listener) covers(p config.Protocol, to config.Listener) bool {
	if l.Protocol != p || l.At.Path+to.Path != "" {
		return l.Protocol == p && l.At.Path == to.Path
	}
	at, addr := l.At.Addr, to.Addr
	return at.Port() == addr.Port() &&
		(at.Addr() == addr.Addr() || at.Addr().IsUnspecified() || addr.Addr().IsUnspecified())
}

// Look reports what a daemon with this configuration would find now. Look checks which instances each service would
// use, whether Consul allows the queries, whether the listen addresses are free, and whether this host is set up for
// transparent services. For services of the mesh, Look also asks for the certificates of their identities, and shakes
// hands with an endpoint. For exposed services, Look asks this host's agent for their instances. The addresses of own
// count as free. Look serves nothing.
func Look(ctx context.Context, cfg *config.Config, own []Listener) (all []Sight, problems hcl.Diagnostics) {
	consul, err := discovery.NewConsul(consulOptions(cfg.Consul, nil))
	if err != nil {
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Consul cannot be asked", Detail: err.Error()}
		return nil, hcl.Diagnostics{d}
	}
	consul.Client().Settle(ctx, "")
	for _, s := range cfg.Services {
		seen, more := lookAt(ctx, cfg, s, consul)
		problems = append(append(problems, more...), taken(s, own)...)
		all = append(all, seen...)
	}
	problems = append(problems, answersLost(cfg, all)...)
	problems = append(problems, leadBack(ctx, cfg, all)...)
	problems = append(problems, tryIdentities(ctx, cfg, all)...)
	exposed, more := lookAtExposed(ctx, cfg, own)
	return append(all, exposed...), append(problems, more...)
}

// A Sight is the current result of one query of a service.
type Sight struct {
	service   string
	what      string // the query, in words
	instances []discovery.Instance
	notes     []string // lines for Describe
	prefers   string   // which instances the service prefers; empty: none
}

// lookAt runs the service's queries.
func lookAt(
	ctx context.Context, cfg *config.Config, s config.Service, consul looker,
) (all []Sight, problems hcl.Diagnostics) {
	if s.Mesh != nil {
		return lookAtMesh(ctx, cfg, s, consul)
	}
	for _, q := range queriesOf(s) {
		query := queryFor(cfg, &s, q)
		instances, err := consul.Look(ctx, query)
		if d := lookProblem(s, q, instances, err); d != nil {
			if err == nil {
				d.Detail = fmt.Sprintf("Service %q: %s", s.Name, whyEmpty(ctx, cfg, q, consul))
			}
			problems = append(problems, d)
		}
		if len(instances) > 0 {
			all = append(all, Sight{service: s.Name, what: whatOf(q), instances: instances,
				prefers: preferenceNow(ctx, s, query, consul)})
		}
	}
	return all, problems
}

// lookProblem returns the problem with the answer to a query, or nil. If there is no error, the problem has no detail.
func lookProblem(
	s config.Service, q config.ConsulQuery, instances []discovery.Instance, err error,
) *hcl.Diagnostic {
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Subject: s.DeclRange.Ptr()}
	if err != nil {
		d.Detail = fmt.Sprintf("Service %q: %v.", s.Name, err)
	}
	var refused *discovery.RefusedError
	switch {
	case errors.As(err, &refused):
		d.Summary = "Query refused by Consul"
		d.Detail = fmt.Sprintf("Service %q: %s.%s", s.Name, refused.Reason, enterpriseHint(refused.Reason))
		if q.Filter != "" {
			d.Subject = q.FilterRange.Ptr()
		}
	case errors.Is(err, discovery.ErrNoToken):
		d.Severity, d.Summary = hcl.DiagWarning, "No instances"
	case errors.As(err, new(*discovery.HiddenError)):
		d.Severity, d.Summary = hcl.DiagWarning, "Instances are hidden"
	case err != nil:
		d.Summary = "Not answered by Consul"
	case len(instances) == 0: // whyEmpty knows more
		d.Severity, d.Summary = hcl.DiagWarning, "No instances"
	default:
		return nil
	}
	return d
}

// whatOf describes a query.
func whatOf(q config.ConsulQuery) string {
	parts := []string{fmt.Sprintf("consul service %q", q.Service)}
	if q.PreparedQuery != "" {
		parts = []string{fmt.Sprintf("prepared query %q", q.PreparedQuery)}
	}
	if q.Datacenter != "" {
		parts = append(parts, fmt.Sprintf("datacenter %q", q.Datacenter))
	}
	if q.Namespace != "" {
		parts = append(parts, fmt.Sprintf("namespace %q", q.Namespace))
	}
	if q.Partition != "" {
		parts = append(parts, fmt.Sprintf("partition %q", q.Partition))
	}
	if q.Peer != "" {
		parts = append(parts, fmt.Sprintf("peer %q", q.Peer))
	}
	if q.Port != "" {
		parts = append(parts, fmt.Sprintf("port %q", q.Port))
	}
	if q.Address != "" {
		parts = append(parts, fmt.Sprintf("address %q", q.Address))
	}
	return strings.Join(parts, ", ")
}

// Describe returns one line for the query, and one for each instance. Notes come last.
func (s *Sight) Describe() []string {
	in := 0
	var lines []string
	for _, one := range s.instances {
		if one.Out == "" {
			in++
			lines = append(lines, fmt.Sprintf("  in   %s  %s%s", one.ID, one.Address(), s.zoneOf(&one)))
		} else {
			lines = append(lines, fmt.Sprintf("  out  %s  %s: %s", one.ID, one.Out, one.Detail))
		}
	}
	head := fmt.Sprintf("%s: %d of %s (%s)", s.service, in, config.Plural(len(s.instances), "instance"),
		s.what)
	if s.prefers != "" {
		head += "; " + s.prefers
	}
	return append(append([]string{head}, lines...), s.notes...)
}

// zoneOf returns the zone of an instance, as the end of its line.
func (s *Sight) zoneOf(one *discovery.Instance) string {
	switch {
	case s.prefers == "":
		return ""
	case one.Near:
		return "  " + one.Zone + ", near"
	case one.Zone == "":
		return "  zone not known"
	}
	return "  " + one.Zone
}

// preferenceNow says which instances the service would prefer now.
func preferenceNow(ctx context.Context, s config.Service, q discovery.Query, consul looker) string {
	if s.Prefer == "" {
		return ""
	}
	zone, problem := consul.OwnZone(ctx, q)
	if problem != "" {
		return fmt.Sprintf("prefers the same %s, which is not known: %s", s.Prefer, problem)
	}
	return fmt.Sprintf("prefers the same %s (%s)", s.Prefer, zone)
}

// CheckHost checks whether the access log of cfg can be opened on this host, without changing anything. Missing
// permission is only a warning, because Lictor may run as another user.
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
		d.Detail = err.Error() + " for this user. Ignore this if lictor runs as another user."
	}
	return hcl.Diagnostics{d}
}

// InUse returns the listen addresses that are already in use on this host, such as "tcp 127.0.0.1:80 (service "web")".
// The addresses of own do not count.
func InUse(cfg *config.Config, own []Listener) (all []string) {
	for _, s := range cfg.Services {
		for _, addr := range s.Listen {
			if errors.Is(tryListen(s.Protocol, addr, own), syscall.EADDRINUSE) {
				all = append(all, fmt.Sprintf("%s %s (service %q)", s.Protocol, addr, s.Name))
			}
		}
	}
	return all
}

// taken returns a warning for each address of the service that another process uses. Without own, that may be a Lictor
// with this configuration.
func taken(s config.Service, own []Listener) hcl.Diagnostics {
	var problems hcl.Diagnostics
	for _, addr := range s.Listen {
		err := tryListen(s.Protocol, addr, own)
		if err == nil {
			continue
		}
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Address cannot be used",
			Detail: fmt.Sprintf("Service %q: %v%s.", s.Name, err, hint(err)), Subject: s.DeclRange.Ptr()}
		if errors.Is(err, syscall.EADDRINUSE) {
			d.Severity, d.Summary = hcl.DiagWarning, "Address in use"
			d.Detail = fmt.Sprintf("Service %q: another process listens at %s %s already.", s.Name, s.Protocol, addr)
			if len(own) == 0 {
				d.Detail += " Ignore this if it is a lictor with this configuration."
			}
		}
		problems = append(problems, d)
	}
	return problems
}

// tryListen listens at an address for a moment, without accepting a client. For a Unix socket, tryListen only looks
// whether another file or process is in the way. tryListen returns nil for the addresses of own.
func tryListen(p config.Protocol, at config.Listener, own []Listener) error {
	if slices.ContainsFunc(own, func(l Listener) bool { return l.covers(p, at) }) {
		return nil
	}
	if at.Path != "" {
		return unixsocket.Check(at.Path)
	}
	addr := at.Addr
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
