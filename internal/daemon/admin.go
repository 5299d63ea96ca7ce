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

// adminGrace is how long requests of the admin API may go on after the last client has gone, or when its listener is
// left for another.
const adminGrace = time.Second

// shareDescriptors returns how many of the descriptors that this process may have are for the admin API's connections,
// and how many are left for the proxier. A limit of zero is not known, and then so is the rest.
func shareDescriptors(limit int64) (forAdmin int, rest int64) {
	const least, most, share = 8, 64, 16
	if limit <= 0 {
		return most, 0
	}
	n := min(max(limit/share, least), most)
	return int(n), max(limit-n, 1)
}

// An adminServer is the admin API of a daemon at work, at one listener or none.
type adminServer struct {
	*admin.Server
	log      hclog.Logger
	cfg      config.Admin
	listener net.Listener // nil: it is off, or its default socket cannot be had
	running  sync.WaitGroup
}

// openAdmin opens the admin API's listener: nil if it is off, or if the default one cannot be had, which the log tells.
// An address from the configuration that cannot be had is an error, as it is for a service. Old is the listener that
// this one will replace, or nil.
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
			" say in an admin block where it should be, or that it is off",
			"error", strings.ReplaceAll(err.Error(), "\n", "; "))
		return nil, nil
	}
	return l, nil
}

// serveAdmin serves at l, which may be nil.
func (d *Daemon) serveAdmin(cfg config.Admin, l net.Listener) *adminServer {
	connections, _ := shareDescriptors(descriptorLimit())
	a := &adminServer{log: d.log, cfg: cfg, Server: admin.New(admin.Options{
		State: admin.State{
			Proxier:    d.proxier,
			Sets:       d.sets,
			Watches:    d.watches,
			Instances:  admin.ExplainedBy(d.explainer),
			Sources:    admin.SourcesBy(d.explainer),
			Excluded:   admin.ExcludedBy(d.explainer),
			Balanced:   admin.BalancedBy(d.balancer, d.resolver),
			Names:      d.resolver,
			Configured: d.configured,
		},
		Events:         d.events,
		Logger:         d.log,
		MaxConnections: connections,
		Version:        d.o.Version,
		CommandLine:    d.o.CommandLine,
		Revision:       d.o.Revision,
		Reload:         d.Reload,
		Upgrade:        d.Upgrade,
		Config:         func() any { return d.cfg.Load() },
		Pending:        d.pendingShown,
		Level:          func() string { return d.log.GetLevel().String() },
		SetLevel:       d.setLevel,
		AccessLog:      d.access.Counts,
		LogDropped:     d.o.Output.err.Dropped,
		Healthy:        d.healthy,
	})}
	a.serve(l)
	return a
}

// serve serves at l from now on, which may be nil. What is served at the former listener is the caller's business.
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

// address returns where the API is. It is empty if there is none.
func (a *adminServer) address() string {
	switch {
	case a.listener == nil:
		return ""
	case a.listener.Addr().Network() == "unix":
		return "unix://" + a.listener.Addr().String()
	}
	return a.listener.Addr().String()
}

// keeps reports whether the listener is where cfg wants it. Without an address in cfg that is any of the default ones.
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

// prepare opens what cfg needs. The former listener is closed when the new one is in use; a request that is under way
// there, such as the one for this very reload, gets its answer.
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

// leave closes l at once, so that the next reload can have its address. Requests in flight get a moment.
func (a *adminServer) leave(l net.Listener) {
	finish := a.Leave(l)
	a.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), adminGrace)
		defer cancel()
		finish(ctx)
	})
}

// stop ends the API. Requests in flight get a moment.
func (a *adminServer) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), adminGrace)
	defer cancel()
	a.Shutdown(ctx)
	a.running.Wait()
}

// watches returns the watches in Consul, or nil.
func (d *Daemon) watches() admin.Watches {
	if c := d.consul.Load(); c != nil {
		return c
	}
	return nil
}

// explainer returns what can say why instances are out, or nil.
func (d *Daemon) explainer() admin.Explainer {
	if c := d.consul.Load(); c != nil {
		return c
	}
	return nil
}

// pendingShown returns the changes that are pending as the API shows them.
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

// configured returns the services of the configuration in force as the API shows them. The API asks for every probe, so
// the list is made once for each configuration.
func (d *Daemon) configured() []admin.Configured {
	cfg := d.cfg.Load()
	if made := d.shown.Load(); made != nil && made.cfg == cfg {
		return made.services
	}
	all := make([]admin.Configured, 0, len(cfg.Services))
	for i := range cfg.Services {
		s := &cfg.Services[i]
		all = append(all, admin.Configured{Name: s.Name, Protocol: s.Protocol.String(), Source: sourceOf(s)})
	}
	d.shown.Store(&shownServices{cfg, all})
	return all
}

// shownServices are the services of a configuration as the API shows them.
type shownServices struct {
	cfg      *config.Config
	services []admin.Configured
}

// sourceOf says where a service's endpoints come from, in order of preference.
func sourceOf(s *config.Service) string {
	var all []string
	for _, q := range queriesOf(*s) {
		all = append(all, whatOf(q))
	}
	if s.Static != nil {
		all = append(all, config.Plural(len(s.Static.Endpoints), "static endpoint"))
	}
	return strings.Join(all, "; else ")
}
