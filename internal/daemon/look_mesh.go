package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/mesh"
	"github.com/lictor-proxy/lictor/lb"
)

// lookAtMesh follows the discovery chain of a service of the mesh, and asks for the instances of each target.
func lookAtMesh(
	ctx context.Context, cfg *config.Config, s config.Service, consul looker,
) (all []Sight, problems hcl.Diagnostics) {
	tiers, left, err := consul.LookChain(ctx, watchOf(cfg, s))
	if err != nil {
		d := lookProblem(s, *s.Consul, nil, err)
		if errors.As(err, new(*discovery.ChainError)) {
			d.Summary = "Discovery chain cannot be followed"
		}
		return nil, hcl.Diagnostics{d}
	}
	for _, one := range left {
		problems = append(problems, &hcl.Diagnostic{Severity: hcl.DiagWarning,
			Summary: "Target of the discovery chain is left out", Subject: s.DeclRange.Ptr(),
			Detail: fmt.Sprintf("Service %q does not fail over to %s, because it %s.", s.Name, one.Name, one.Reason)})
	}
	for _, t := range tiers {
		instances, err := consul.Look(ctx, t.Query)
		if d := lookProblem(s, *s.Consul, instances, err); d != nil {
			if err == nil {
				d.Detail = fmt.Sprintf("Service %q: %s", s.Name, whyNoWay(ctx, cfg, t.Query, consul))
			}
			problems = append(problems, d)
		}
		if len(instances) > 0 {
			all = append(all, Sight{service: s.Name, what: t.Query.String(), instances: instances,
				prefers: preferenceNow(ctx, s, t.Query, consul)})
		}
	}
	return all, problems
}

// whyNoWay says why no instance of the mesh leads to the service of q.
func whyNoWay(ctx context.Context, cfg *config.Config, q discovery.Query, consul looker) string {
	of := config.ConsulQuery{Service: q.Service, Tags: q.Tags, Filter: q.Filter, Datacenter: q.Datacenter}
	outside := q
	outside.Mesh = false
	if known, err := consul.Look(ctx, outside); err != nil || len(known) == 0 {
		return whyEmpty(ctx, cfg, of, consul)
	}
	return fmt.Sprintf("no instance of %s is in the mesh: Consul knows no sidecar, no native instance and no "+
		"terminating gateway for it that matches.", whatOf(of))
}

// tryIdentities asks once for the certificate of each identity in cfg and for the intentions of exposed services, and
// shakes hands with one endpoint of each service of the mesh. It notes successes in sights.
func tryIdentities(ctx context.Context, cfg *config.Config, sights []Sight) (problems hcl.Diagnostics) {
	if !entersMesh(cfg) {
		return nil
	}
	client, err := consul.New(clientOptions(cfg.Consul))
	if err != nil {
		return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Consul cannot be asked", Detail: err.Error()}}
	}
	defer client.CloseIdle()
	store := mesh.NewStore(mesh.Options{Consul: client})
	used := map[string]*mesh.Identity{} // by service
	for _, s := range cfg.Services {
		if s.Mesh != nil {
			used[s.Name] = store.Use(s.Mesh.As, s.Name)
		}
	}
	for _, e := range cfg.Expose {
		store.Use(e.Name, config.ExposedName(e.Name, 1))
		store.Intentions(e.Name, false)
	}
	store.AskOnce(ctx)
	state := store.State()
	if state.Err != nil {
		return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "No service mesh",
			Detail: "Consul does not give the authorities of its service mesh: " + withoutMesh(state.Err)}}
	}
	bad := map[string]bool{} // identities without a certificate
	for i := range state.Identities {
		if one := &state.Identities[i]; one.Err != nil {
			bad[one.Name] = true
			problems = append(problems, noCertificate(cfg, one))
		}
	}
	problems = append(problems, noIntentions(cfg, &state)...)
	for _, s := range cfg.Services {
		if s.Mesh != nil && !bad[s.Mesh.As] {
			if d := tryHandshake(ctx, &s, used[s.Name], sights); d != nil {
				problems = append(problems, d)
			}
		}
	}
	return problems
}

// withoutMesh returns the text of the error of a question for authorities, and what to do about it.
func withoutMesh(err error) string {
	if consul.KindOf(err) == consul.Unable {
		return err.Error() + ". Set connect { enabled = true } in the configuration of Consul's servers and of this " +
			"agent."
	}
	return err.Error() + "."
}

// noCertificate returns the problem of an identity that has no certificate.
func noCertificate(cfg *config.Config, one *mesh.IdentityState) *hcl.Diagnostic {
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "No certificate for the identity",
		Detail: fmt.Sprintf("Identity %q of service %q: %v.", one.Name, strings.Join(one.Services, ", "), one.Err)}
	if consul.KindOf(one.Err) == consul.Denied {
		d.Detail += fmt.Sprintf(" Give Lictor's token service:write for %q.", one.Name)
	}
	for _, s := range cfg.Services {
		if s.Name == one.Services[0] {
			d.Subject = s.DeclRange.Ptr()
		}
	}
	for _, e := range cfg.Expose {
		if config.ExposedName(e.Name, 1) == one.Services[0] {
			d.Subject = e.DeclRange.Ptr()
		}
	}
	return d
}

// tryHandshake shakes hands with the first endpoint of a service. It returns a problem, or notes the success in the
// sight that has the endpoint.
func tryHandshake(ctx context.Context, s *config.Service, as *mesh.Identity, sights []Sight) *hcl.Diagnostic {
	for i := range sights {
		for _, e := range sights[i].instances {
			if sights[i].service != s.Name || e.Out != "" {
				continue
			}
			err := shakeHands(ctx, s.ConnectTimeout, as, e.Endpoint)
			if err == nil {
				sights[i].notes = append(sights[i].notes,
					fmt.Sprintf("  ok   %s  proves its identity, and takes that of %q", e.ID, s.Mesh.As))
				return nil
			}
			return handshakeProblem(s, e.Endpoint, err)
		}
	}
	return nil
}

// handshakeProblem describes the error of a handshake with e.
func handshakeProblem(s *config.Service, e lb.Endpoint, err error) *hcl.Diagnostic {
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Handshake failed", Subject: s.DeclRange.Ptr(),
		Detail: fmt.Sprintf("Service %q: %s at %s, as %q: %v.", s.Name, e.ID, e.Address(), s.Mesh.As, err)}
	switch {
	case errors.Is(err, lb.ErrDenied):
		d.Severity, d.Summary = hcl.DiagWarning, "Denied by the destination"
		d.Detail += fmt.Sprintf(" Does an intention in Consul allow %q to use the service?", s.Mesh.As)
	case errors.Is(err, errHungUp):
		d.Severity, d.Summary = hcl.DiagWarning, "Connection ended at once"
	case cutShort(err):
		d.Severity, d.Summary = hcl.DiagWarning, "Instance not reached"
	}
	return d
}

// cutShort reports whether err says that the connection failed, and not that the other end could not be verified.
func cutShort(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &op) && op.Op != "remote error"
}

// errHungUp is wrapped by the error of an endpoint that has shaken hands, and then ended the connection.
var errHungUp = errors.New("it ended the connection at once, as Envoy does if an intention denies the identity")

// denialWait is how long an endpoint has to deny a connection after the handshake. Under TLS 1.3 it does so with its
// first record.
const denialWait = 300 * time.Millisecond

// shakeHands connects to e and shakes hands. The error of a handshake wraps lb.ErrHandshake or lb.ErrDenied.
func shakeHands(ctx context.Context, timeout time.Duration, as *mesh.Identity, e lb.Endpoint) error {
	c, err := meshConfig(as, e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.Address())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	secure := tls.Client(conn, c)
	err = secure.HandshakeContext(ctx)
	if err == nil {
		_ = secure.SetReadDeadline(time.Now().Add(denialWait))
		_, err = secure.Read(make([]byte, 1))
	} else if lb.Denial(err) == nil {
		return fmt.Errorf("%w: %w", lb.ErrHandshake, err)
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if denial := lb.Denial(err); denial != nil {
		return denial
	}
	return fmt.Errorf("%w: %w", errHungUp, err)
}
