// Package daemon is a lictor at work. It turns a configuration into what the other rooms take, starts them, reloads,
// upgrades and stops:
//
//	err := daemon.Run(daemon.Options{Config: cfg, Load: load, Output: output}, signals)
//
// [Run] is [Start] and then [Daemon.Serve]. A signal ends both, whatever hangs outside of the process.
package daemon

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/accesslog"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/healthcheck"
	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A Daemon is a lictor at work: sources feed the balancer, and the proxier asks it. Start returns one.
type Daemon struct {
	o       Options                                     // as they were at the start
	load    func() (*config.Config, config.Diagnostics) // reads the configuration again
	cfg     atomic.Pointer[config.Config]               // in force
	pending atomic.Pointer[[]config.PendingChange]      // read by a reload, and not in force; nil: none was read
	log     hclog.Logger
	service *notifier // tells systemd how the daemon does

	// From the sources to the connections.
	consul   atomic.Pointer[discovery.Consul] // nil: no service is in Consul
	mux      *endpoints.Mux                   // which source speaks for a service
	sets     *endpoints.Sets
	cycles   *cycles.Detector // of endpoints that lead back here
	balancer *lb.RoundRobin
	resolver *lb.Resolver
	prober   *lb.Prober
	standbys *standbys
	checker  *healthcheck.Checker
	proxier  *proxy.Proxier

	// What is shown.
	events *endpoints.Events
	admin  *adminServer
	shown  atomic.Pointer[shownServices] // the services that admin was told last; nil: none yet
	access *accesslog.Log

	upgrades  *upgrade.Upgrader // says which process serves
	formers   *formers          // those that this one has replaced
	reloading turn              // of reloads and upgrades, and of what they change
	wanted    chan struct{}     // has an element while a signal or a changed file asks for a reload
	obeying   atomic.Bool       // a goroutine takes signals
	asked     chan struct{}     // which receives from this, too: see hears

	// Written by the goroutine that has the turn of reloading.
	mu          sync.Mutex       // guards the following
	ended       bool             // nothing is to be started any more
	staticInput *endpoints.Input // nil: no service has nothing but a list
	consulInput *endpoints.Input // nil: no service is in Consul
	registered  *registration    // nil: not in Consul, by configuration

	ending  context.Context // ends when a signal to end has come
	toEnd   context.CancelFunc
	ctx     context.Context // ends with the daemon, after the last connection
	cancel  context.CancelFunc
	running sync.WaitGroup // goroutines that end with ctx
}

// register changes the registration in Consul to what cfg says. The caller has the turn of reloading.
func (d *Daemon) register(cfg *config.Config) (err error) {
	former := d.registered
	if former != nil && former.cfg == cfg.Consul && former.admin == d.admin.address() {
		return nil
	}
	former.end()
	var next *registration
	if cfg.Consul.Register {
		next, err = register(cfg.Consul, d.admin.address(), d.o.Version, d.log, d.ready)
	}
	if !d.registerAs(next) {
		next.end()
		return upgrade.ErrEnding
	}
	return err
}

// registerAs sets the registration, which may be nil. It reports whether the daemon has not ended meanwhile.
func (d *Daemon) registerAs(r *registration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended {
		d.registered = r
	}
	return !d.ended
}

// registration returns the registration in Consul, or nil.
func (d *Daemon) registration() *registration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registered
}

// ready reports whether every service has had its first set.
func (d *Daemon) ready() bool {
	select {
	case <-d.mux.Ready():
		return true
	default:
		return false
	}
}

// reloads runs the reloads that signals and changed files ask for, until the daemon ends.
func (d *Daemon) reloads() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.wanted:
			summary, err := d.Reload(d.ctx) // it logs what came of it
			d.admin.Reloaded(summary, err)
		}
	}
}

// wantUpgrade asks for an upgrade, and does not wait for it.
func (d *Daemon) wantUpgrade() {
	d.running.Go(func() {
		_, err := d.Upgrade(d.ctx) // an attempt logs what came of it
		if errors.Is(err, upgrade.ErrInProgress) {
			d.log.Warn("signal ignored", "signal", upgrade.Signal.String(), "reason", err)
		}
	})
}

// wantReload asks for a reload, and does not wait for it. What asks before the reload begins asks for the same one.
func (d *Daemon) wantReload() {
	select {
	case d.wanted <- struct{}{}:
	default:
	}
}
