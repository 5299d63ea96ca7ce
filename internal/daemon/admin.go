package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
)

// adminGrace is how long open requests of the admin API may continue after the last client has gone, or when the API's
// listener changes.
const adminGrace = time.Second

// shareDescriptors splits the process's limit of open descriptors between the admin API's connections and the proxier.
// A limit of zero is unknown; then rest is zero too.
func shareDescriptors(limit int64) (forAdmin int, rest int64) {
	const least, most, share = 8, 64, 16
	if limit <= 0 {
		return most, 0
	}
	n := min(max(limit/share, least), most)
	return int(n), max(limit-n, 1)
}

// An adminServer is the admin API of a running daemon. The adminServer has at most one listener.
type adminServer struct {
	*admin.Server
	log      hclog.Logger
	cfg      config.Admin
	listener net.Listener // nil if the API is off, or if no default socket could be opened
	running  sync.WaitGroup
}

// openAdmin opens the admin API's listener. openAdmin returns nil if the API is off. If no default socket can be
// opened, it logs a warning and returns nil. An address from the configuration that cannot be opened is an error, as
// for a service. Old is the listener that the new one will replace, or nil.
func openAdmin(cfg config.Admin, old net.Listener, log hclog.Logger) (net.Listener, error) {
	switch {
	case cfg.Off:
		return nil, nil
	case cfg.Socket != "" || cfg.TCP.IsValid():
		l, err := admin.ListenBeside(admin.Address{Socket: cfg.Socket, TCP: cfg.TCP}, old)
		if err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
		return l, nil
	}
	l, err := admin.ListenDefault(os.Getenv)
	if err != nil {
		log.Warn("no admin API: its socket cannot be opened;"+
			" set another path, or turn it off, in an admin block",
			"error", strings.ReplaceAll(err.Error(), "\n", "; "))
		return nil, nil
	}
	return l, nil
}

// serveAdmin makes the admin API and serves it at l. If l is nil, the API has no listener.
func (d *Daemon) serveAdmin(cfg config.Admin, l net.Listener) *adminServer {
	connections, _ := shareDescriptors(descriptorLimit())
	a := &adminServer{log: d.log, cfg: cfg, Server: admin.New(admin.Options{
		State: admin.State{
			Proxier:    countedProxier{d.proxier, &d.ledger},
			Sets:       d.sets,
			Watches:    d.watches,
			Consul:     d.consulShown,
			Instances:  admin.ExplainedBy(d.explainer),
			Sources:    admin.SourcesBy(d.explainer),
			Excluded:   admin.ExcludedBy(d.explainer),
			Problems:   d.problemsOf,
			Balanced:   admin.BalancedBy(d.balancer, d.resolver),
			Names:      d.resolver,
			Configured: d.configured,

			Certificates: d.certificates,
			Mesh:         d.identities,
			Paths:        d.kernel.shown,
			Access:       d.explainAccess,

			KernelConnections: d.kernel.connections,
		},
		Events:          d.events,
		Logger:          d.log,
		MaxConnections:  connections,
		Version:         d.o.Version,
		CommandLine:     d.o.CommandLine,
		Revision:        d.o.Revision,
		Reload:          d.Reload,
		Upgrade:         d.Upgrade,
		Config:          func() any { return d.cfg.Load() },
		Pending:         d.pendingShown,
		Level:           func() string { return d.log.GetLevel().String() },
		SetLevel:        d.setLevel,
		AccessLog:       d.access.Counts,
		EndpointMetrics: func() bool { return d.cfg.Load().Metrics.Endpoints },
		LogDropped:      d.o.Output.err.Dropped,
		Healthy:         d.healthy,
	})}
	a.serve(l)
	return a
}

// serve starts serving at l; a nil l means no listener. The caller must close the former listener.
func (a *adminServer) serve(l net.Listener) {
	a.listener = l
	if l == nil {
		return
	}
	a.log.Info("admin API", "listen", a.address())
	serve := a.Open(l, admin.Access{TokenFile: a.cfg.TokenFile, Hosts: a.cfg.Hosts})
	a.running.Go(func() {
		if err := serve(); err != nil {
			a.log.Error("admin API ended", "error", err)
		}
	})
}

// address returns the API's address. The address is empty without a listener.
func (a *adminServer) address() string {
	switch {
	case a.listener == nil:
		return ""
	case a.listener.Addr().Network() == "unix":
		return "unix://" + a.listener.Addr().String()
	}
	return a.listener.Addr().String()
}

// keeps reports whether cfg keeps the present listener. If cfg has no address, every default socket will do.
func (a *adminServer) keeps(cfg config.Admin) bool {
	switch {
	case cfg.Off || a.listener == nil:
		return a.cfg.Off == cfg.Off && a.cfg.Socket == cfg.Socket && a.cfg.TCP == cfg.TCP
	case cfg.TCP.IsValid():
		return a.cfg.TCP == cfg.TCP
	case cfg.Socket != "":
		return a.listener.Addr().String() == cfg.Socket
	}
	return slices.Contains(admin.DefaultSockets(os.Getenv), a.listener.Addr().String())
}

// prepare opens the listener that cfg needs. The commit step closes the former listener, but lets its open requests
// finish, such as the request for this reload.
func (a *adminServer) prepare(cfg config.Admin) (step, error) {
	if a.keeps(cfg) {
		return step{commit: func() {
			a.cfg = cfg
			if a.listener != nil {
				a.Admit(a.listener, admin.Access{TokenFile: cfg.TokenFile, Hosts: cfg.Hosts})
			}
		}}, nil
	}
	former := a.listener
	l, err := openAdmin(cfg, former, a.log)
	if err != nil {
		return step{}, err
	}
	return step{
		commit: func() {
			a.cfg = cfg
			a.serve(l)
			if former != nil {
				a.leave(former)
			}
		},
		abort: func() {
			if l != nil {
				_ = l.Close()
			}
		},
	}, nil
}

// leave closes l at once, so that the next reload can use the address. Open requests may continue for adminGrace.
func (a *adminServer) leave(l net.Listener) {
	finish := a.Leave(l)
	a.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), adminGrace)
		defer cancel()
		finish(ctx)
	})
}

// stop ends the API. Open requests may continue for adminGrace.
func (a *adminServer) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), adminGrace)
	defer cancel()
	a.Shutdown(ctx)
	a.running.Wait()
}

// watches returns the Consul client, or nil if no service is in Consul.
func (d *Daemon) watches() admin.Watches {
	if c := d.consul.Load(); c != nil {
		return c
	}
	return nil
}

// explainer returns the Consul client, which explains why instances are out, or nil if no service is in Consul.
func (d *Daemon) explainer() admin.Explainer {
	if c := d.consul.Load(); c != nil {
		return c
	}
	return nil
}

// pendingShown returns the pending configuration changes as the API shows them.
func (d *Daemon) pendingShown() (all []admin.Pending) {
	for _, p := range d.pendingChanges() {
		all = append(all, admin.Pending(p))
	}
	return all
}

func (d *Daemon) setLevel(level string) error {
	if !slices.Contains(config.LogLevels(), level) {
		return fmt.Errorf("%q is no log level: use one of %s", level, strings.Join(config.LogLevels(), ", "))
	}
	d.log.SetLevel(hclog.LevelFromString(level))
	return nil
}

// configured returns the configured services as the API shows them. The list is kept until the configuration changes,
// because every probe needs it.
func (d *Daemon) configured() []admin.Configured {
	cfg, live := d.cfg.Load(), d.exposed.live.Load()
	if made := d.shown.Load(); made != nil && made.cfg == cfg && made.exposed == live {
		return made.services
	}
	all := make([]admin.Configured, 0, len(cfg.Services)+len(*live))
	for i := range cfg.Services {
		s := &cfg.Services[i]
		all = append(all, admin.Configured{Name: s.Name, Protocol: s.Protocol.String(), Source: sourceOf(s)})
	}
	for _, one := range *live {
		all = append(all, one.shown())
	}
	slices.SortStableFunc(all, func(a, b admin.Configured) int { return strings.Compare(a.Name, b.Name) })
	d.shown.Store(&shownServices{cfg, live, all})
	return all
}

// shownServices are the services of cfg as the API shows them.
type shownServices struct {
	cfg      *config.Config
	exposed  *[]exposed
	services []admin.Configured
}

// sourceOf describes where a service's endpoints come from, in order of preference.
func sourceOf(s *config.Service) string {
	var all []string
	for _, q := range queriesOf(*s) {
		what := whatOf(q)
		if s.Mesh != nil {
			what += fmt.Sprintf(" in the mesh, as %q", s.Mesh.As)
		}
		all = append(all, what)
	}
	if s.Static != nil {
		all = append(all, config.Plural(len(s.Static.Endpoints), "static endpoint"))
	}
	return strings.Join(all, "; else ")
}
