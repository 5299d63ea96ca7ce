// Package daemon runs Lictor. The package turns a configuration into the options of the other packages, starts their
// parts, and reloads, upgrades and stops them:
//
//	err := daemon.Run(daemon.Options{Config: cfg, Load: load, Output: output}, signals)
//
// [Run] calls [Start] and then [Daemon.Serve]. A signal ends both, even if a disk, a file server or Consul hangs.
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
	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/healthcheck"
	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A Daemon is a running Lictor. A Daemon's sources feed the balancer, and the proxier asks the balancer for endpoints.
// Start returns a Daemon.
type Daemon struct {
	o       Options                                     // as they were at the start
	load    func() (*config.Config, config.Diagnostics) // reads the configuration again
	cfg     atomic.Pointer[config.Config]               // the configuration in force
	pending atomic.Pointer[[]config.PendingChange]      // changes that a reload left for a restart; nil for none
	log     hclog.Logger
	service *notifier // reports the daemon's state to systemd

	// From the sources to the connections:
	client     atomic.Pointer[consulClient]     // nil if nothing uses Consul
	nextClient atomic.Pointer[consulClient]     // for a configuration that is about to come into force; nil: none
	consul     atomic.Pointer[discovery.Consul] // nil if no service is in Consul
	mux        *endpoints.Mux                   // chooses which source's sets are used for a service
	sets       *endpoints.Sets
	cycles     *cycles.Detector // finds endpoints that lead back to this process
	balancer   *lb.RoundRobin
	resolver   *lb.Resolver
	prober     *lb.Prober
	standbys   *standbys
	checker    *healthcheck.Checker
	keys       *keyring
	exposed    *exposures
	proxier    *proxy.Proxier
	collector  collector // of garbage
	kernel     *kernelKeeper

	// For the admin API:
	events *endpoints.Events
	admin  *adminServer
	shown  atomic.Pointer[shownServices] // the services that the admin API showed last; nil at first
	access *accesslog.Log

	upgrades  *upgrade.Upgrader // records which process serves
	formers   *formers          // the processes that this one has replaced
	ledger    ledger            // what they have counted
	last      chan struct{}     // closed to send the last report to the successor; nil: nothing is reported
	told      chan struct{}     // closed when the last report was sent; nil: nothing is reported
	reloading turn              // taken by a reload or an upgrade; protects what they change
	wanted    chan struct{}     // has an element while a signal or a changed file asks for a reload
	obeying   atomic.Bool       // a goroutine receives signals
	asked     chan struct{}     // that goroutine receives from this channel too; see hears

	// Only the holder of reloading writes these fields.
	mu          sync.Mutex       // guards the fields below
	ended       bool             // nothing may be started any more
	staticInput *endpoints.Input // nil if no service has only static endpoints
	consulInput *endpoints.Input // nil if no service is in Consul
	registered  *registration    // nil if Lictor does not register itself in Consul

	ending  context.Context // ends when a signal asks the process to end
	toEnd   context.CancelFunc
	ctx     context.Context // ends with the daemon, after the last connection
	cancel  context.CancelFunc
	running sync.WaitGroup // goroutines that end when ctx ends
}

// register changes Lictor's own registration in Consul to match cfg. The caller must hold d.reloading.
func (d *Daemon) register(cfg *config.Config) (err error) {
	former := d.registered
	if former != nil && former.cfg == cfg.Consul && former.admin == d.admin.address() {
		return nil
	}
	former.end()
	var next *registration
	var client *consul.Client
	if cfg.Consul.Register {
		if client, err = d.clientOf(cfg.Consul); err == nil {
			d.use(cfg.Consul, client)
			next = register(cfg.Consul, client, d.admin.address(), d.o.Version, d.log, d.ready)
		}
	}
	if next == nil && d.consul.Load() == nil {
		d.client.Store(nil)
	}
	if !d.registerAs(next) {
		next.end()
		return upgrade.ErrEnding
	}
	return err
}

// registerAs stores the registration, which may be nil. registerAs returns false if the daemon has ended meanwhile.
func (d *Daemon) registerAs(r *registration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended {
		d.registered = r
	}
	return !d.ended
}

// registration returns Lictor's own registration in Consul, or nil.
func (d *Daemon) registration() *registration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registered
}

// ready reports whether every service has received its first set. A Lictor that only exposes services to the mesh has
// none before the first instance is served, and is ready.
func (d *Daemon) ready() bool {
	select {
	case <-d.mux.Ready():
		return true
	default:
		return len(d.configured()) == 0
	}
}

// reloads runs the reloads that signals and changed files ask for, until the daemon ends.
func (d *Daemon) reloads() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.wanted:
			summary, err := d.Reload(d.ctx) // Reload logs the result
			d.admin.Reloaded(summary, err)
		}
	}
}

// wantUpgrade starts an upgrade in the background.
func (d *Daemon) wantUpgrade() {
	d.running.Go(func() {
		_, err := d.Upgrade(d.ctx) // the attempt logs its result
		if errors.Is(err, upgrade.ErrInProgress) {
			d.log.Warn("signal ignored", "signal", upgrade.Signal.String(), "reason", err)
		}
	})
}

// wantReload asks for a reload in the background. Several calls before the reload begins cause one reload.
func (d *Daemon) wantReload() {
	select {
	case d.wanted <- struct{}{}:
	default:
	}
}
