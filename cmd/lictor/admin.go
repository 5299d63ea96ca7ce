package main

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

// adminGrace is how long requests of the admin API may go on after the last client has gone.
const adminGrace = time.Second

// An adminServer is the admin API of a daemon at work. Nil is one that is off.
type adminServer struct {
	*admin.Server
	running sync.WaitGroup
}

// openAdmin opens the admin API's listener: nil if it is off, or if the default one cannot be had, which the log tells. An address from the
// configuration that cannot be had is an error, as it is for a service.
func openAdmin(cfg config.Admin, log hclog.Logger) (net.Listener, error) {
	switch {
	case cfg.Off:
		return nil, nil
	case cfg.Socket != "" || cfg.TCP.IsValid():
		l, err := admin.Listen(admin.Address{Socket: cfg.Socket, TCP: cfg.TCP})
		if err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
		return l, nil
	}
	l, err := admin.ListenDefault(os.Getenv)
	if err != nil {
		log.Warn("no admin API: its socket cannot be opened; say in an admin block where it should be, or that it is off", "error", strings.ReplaceAll(err.Error(), "\n", "; "))
		return nil, nil
	}
	return l, nil
}

// serveAdmin serves at l, which may be nil.
func (d *daemon) serveAdmin(l net.Listener) *adminServer {
	if l == nil {
		return nil
	}
	b := newBuild()
	a := &adminServer{Server: admin.New(admin.Options{
		State: admin.State{
			Proxier:    d.proxier,
			Sets:       d.sets,
			Watches:    d.watches,
			Instances:  admin.ExplainedBy(d.explainer),
			Excluded:   admin.ExcludedBy(d.explainer),
			Balanced:   admin.BalancedBy(d.balancer),
			Configured: func() []admin.Configured { return configured(d.cfg.Load()) },
		},
		Events:    d.events,
		Logger:    d.log,
		Version:   b.Version,
		Revision:  b.Revision,
		Reload:    d.Reload,
		Config:    func() any { return plain(d.cfg.Load()) },
		Level:     func() string { return d.log.GetLevel().String() },
		SetLevel:  d.setLevel,
		AccessLog: d.access.counts(),
		TokenFile: d.cfg.Load().Admin.TokenFile,
		Hosts:     d.cfg.Load().Admin.Hosts,
	})}
	address := l.Addr().String()
	if l.Addr().Network() == "unix" {
		address = "unix://" + address
	}
	d.log.Info("admin API", "listen", address)
	a.running.Go(func() {
		if err := a.Serve(l); err != nil {
			d.log.Error("admin API ended", "error", err)
		}
	})
	return a
}

// stop ends the API. Requests in flight get a moment.
func (a *adminServer) stop() {
	if a == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminGrace)
	defer cancel()
	a.Shutdown(ctx)
	a.running.Wait()
}

// watches are those of Consul, if there is any.
func (d *daemon) watches() admin.Watches {
	if c := d.consul.Load(); c != nil {
		return c
	}
	return nil
}

// explainer is Consul, if there is any.
func (d *daemon) explainer() admin.Explainer {
	if c := d.consul.Load(); c != nil {
		return c
	}
	return nil
}

func (d *daemon) setLevel(level string) error {
	if !slices.Contains(config.LogLevels(), level) {
		return fmt.Errorf("%q is no log level: use one of %s", level, strings.Join(config.LogLevels(), ", "))
	}
	d.log.SetLevel(hclog.LevelFromString(level))
	return nil
}

// configured are the services of cfg as the API shows them.
func configured(cfg *config.Config) []admin.Configured {
	var all []admin.Configured
	for _, s := range cfg.Services {
		all = append(all, admin.Configured{Name: s.Name, Protocol: s.Protocol.String(), Source: sourceOf(&s)})
	}
	return all
}

// sourceOf says where a service's endpoints come from, in order of preference.
func sourceOf(s *config.Service) string {
	var all []string
	for _, q := range queriesOf(*s) {
		all = append(all, whatOf(q))
	}
	if s.Static != nil {
		all = append(all, count(len(s.Static.Endpoints), "static endpoint"))
	}
	return strings.Join(all, "; else ")
}
