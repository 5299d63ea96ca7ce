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
	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A Daemon is a lictor at work: sources feed the balancer, and the proxier asks it. Start returns one.
type Daemon struct {
	o        Options                       // as they were at the start
	cfg      atomic.Pointer[config.Config] // in force
	load     func() (*config.Config, config.Diagnostics)
	log      hclog.Logger
	proxier  *proxy.Proxier
	balancer *lb.Balancer
	resolver *lb.Resolver
	prober   *lb.Prober
	mux      *endpoints.Mux
	service  *notifier // what started this process, and wants to know how it does
	events   *endpoints.Events
	sets     *endpoints.Sets  // between the sources and the balancer
	cycles   *cycles.Detector // of endpoints that lead back here
	admin    *adminServer
	shown    atomic.Pointer[shownServices] // what admin was told last; nil: nothing yet
	access   *accesslog.Log

	upgrades  *upgrade.Upgrader // says which process serves
	reloading turn              // of reloads and upgrades, and of what they change
	asked     chan struct{}     // received from by what takes signals
	obeying   atomic.Bool       // that has begun

	consul atomic.Pointer[discovery.Consul] // nil: no service is in Consul

	// Changed only by who has the turn of reloading.
	mu         sync.Mutex       // guards the following
	ended      bool             // nothing is to be started any more
	staticFeed *endpoints.Input // nil: no service is static
	consulFeed *endpoints.Input // nil: no service is in Consul
	registered *registration    // nil: not in Consul, by configuration

	ending  context.Context // ends when a signal to end has come
	toEnd   context.CancelFunc
	ctx     context.Context // ends with the daemon, when the last connection has ended
	cancel  context.CancelFunc
	running sync.WaitGroup
	wanted  chan struct{} // reloads that signals and changed files ask for
}

// register makes the registration what cfg says. The caller has the turn of reloading.
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

// registerAs notes the registration, which may be nil. It returns false if the daemon has ended meanwhile.
func (d *Daemon) registerAs(r *registration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended {
		d.registered = r
	}
	return !d.ended
}

// registration returns what this lictor is registered as, or nil.
func (d *Daemon) registration() *registration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registered
}

// ready tells whether every service has had its first set.
func (d *Daemon) ready() bool {
	select {
	case <-d.mux.Ready():
		return true
	default:
		return false
	}
}

// reloads reloads whenever that is wanted.
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

// wantUpgrade has another process take this one's place, soon.
func (d *Daemon) wantUpgrade() {
	d.running.Go(func() {
		_, err := d.Upgrade(d.ctx) // an attempt logs what came of it
		if errors.Is(err, upgrade.ErrInProgress) {
			d.log.Warn("signal ignored", "signal", upgrade.Signal.String(), "reason", err)
		}
	})
}

// wantReload has the configuration read again, soon. Wants that come before that are one.
func (d *Daemon) wantReload() {
	select {
	case d.wanted <- struct{}{}:
	default:
	}
}
