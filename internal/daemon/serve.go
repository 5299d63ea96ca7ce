package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// Bounds of what the end of the process waits for. Each is far more than what is waited for takes, unless it is stuck.
const (
	startGrace   = 3 * time.Second  // from a signal to end until a start is given up
	upgradeStop  = 2 * time.Second  // for an upgrade to be given up, or to be completed
	reloadStop   = 2 * time.Second  // the same of a reload
	cutGrace     = 10 * time.Second // for connections to be cut
	endGrace     = 10 * time.Second // for all else
	healthyAfter = 5 * time.Second  // for anything that clients need to answer whether it moves
)

// endsProcess reports whether s asks the process to end.
func endsProcess(s os.Signal) bool { return s != syscall.SIGHUP && s != upgrade.Signal }

// ErrStuck is the error of Run and Serve when connections could not be cut. The log has said so.
var ErrStuck = errors.New("connections could not be cut: something is stuck")

// Run starts a daemon and serves until a signal ends it. It returns nil then, ErrStuck, or why the daemon did not
// start. A start that hangs does not keep a signal from ending the process. Other signals count when the daemon has
// started.
func Run(o Options, signals <-chan os.Signal) error {
	ignorePipes()
	return run(o.Predecessor, signals, func(ctx context.Context) (*Daemon, error) {
		d, err := Start(ctx, o)
		if err == nil && o.Started != nil {
			o.Started(d)
		}
		return d, err
	})
}

func run(p *upgrade.Predecessor, signals <-chan os.Signal, start func(context.Context) (*Daemon, error)) error {
	type outcome struct {
		daemon *Daemon
		err    error
	}
	started := make(chan outcome, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		d, err := start(ctx)
		started <- outcome{d, err}
	}()
	var later []os.Signal
	var over <-chan time.Time // nil: no signal to end has come
	giveUp := func() error {
		last := later[len(later)-1]
		err := fmt.Errorf("signal %s came, and the start has not ended: does a disk or a file server hang?", last)
		p.Failed(err)
		return err
	}
	for {
		select {
		case o := <-started:
			switch {
			case o.err == nil:
				return o.daemon.Serve(signals, later...)
			case over != nil: // it was asked to
				return nil
			}
			p.Failed(withHints(o.err))
			return o.err
		case s := <-signals:
			later = append(later, s)
			switch {
			case !endsProcess(s):
			case over != nil: // the second one
				return giveUp()
			default:
				cancel()
				over = time.After(startGrace)
			}
		case <-over:
			return giveUp()
		}
	}
}

// Serve does what signals say until one ends the process, or another process has taken over and the last connection has
// ended. It returns nil or ErrStuck. Earlier signals are in before.
func (d *Daemon) Serve(signals <-chan os.Signal, before ...os.Signal) error {
	err := d.obey(signals, before)
	if !within(endGrace, d.conclude) {
		d.log.Error("ended without waiting for everything: something outside hangs", "waited", endGrace.String())
	}
	return err
}

// obey is serve until the last connection has ended. It waits for nothing but signals and what it is told.
func (d *Daemon) obey(signals <-chan os.Signal, before []os.Signal) error {
	d.obeying.Store(true)
	d.service.ready(d.status())
	alive, stopTicks := d.service.ticks()
	defer stopTicks()
	ready := d.mux.Ready()
	var checked chan error // nil: nobody looks whether all is alive
	for {
		var s os.Signal
		if len(before) > 0 {
			s, before = before[0], before[1:]
		} else {
			select {
			case <-ready:
				cfg := d.cfg.Load()
				d.log.Info("ready", "services", len(cfg.Services), "listeners", cfg.Listeners())
				ready = nil
				d.service.status(d.status())
				continue
			case <-alive:
				if checked == nil {
					checked = make(chan error, 1)
					d.running.Go(func() { checked <- d.proxier.Alive(d.service.patience()) })
				}
				continue
			case err := <-checked:
				checked = nil
				d.tellWatchdog(err)
				continue
			case <-d.asked:
				continue
			case <-d.upgrades.Replaced():
				return d.finish(signals)
			case s = <-signals:
			}
		}
		switch {
		case s == syscall.SIGHUP:
			d.wantReload()
		case s == upgrade.Signal:
			d.wantUpgrade()
		default:
			d.toEnd()
			if d.upgrades.End() == nil {
				return d.stop(s, signals)
			}
			select { // another process has taken over just now
			case <-d.upgrades.Replaced():
			case <-time.After(upgradeStop):
			}
			return d.finish(signals, s)
		}
	}
}

// tellWatchdog tells systemd that this process is alive, unless err says what is not.
func (d *Daemon) tellWatchdog(err error) {
	if err != nil {
		d.log.Error("something is stuck, the watchdog is not told that all is well", "error", err)
		return
	}
	d.service.alive()
}

// errDeaf is that of a daemon that does not hear signals.
var errDeaf = errors.New("what takes signals: no answer")

// healthy returns nil if all that clients and operators depend on moves, or else what does not.
func (d *Daemon) healthy() error {
	return errors.Join(d.hears(), d.proxier.Alive(healthyAfter))
}

// hears returns nil if signals are taken, or errDeaf. At the start and at the end something else takes them.
func (d *Daemon) hears() error {
	if !d.obeying.Load() {
		return nil
	}
	over := time.NewTimer(healthyAfter)
	defer over.Stop()
	select {
	case d.asked <- struct{}{}:
	case <-d.ending.Done():
	case <-over.C:
		return errDeaf
	}
	return nil
}

// status is the daemon's state in a line.
func (d *Daemon) status() string {
	services := config.Plural(len(d.cfg.Load().Services), "service")
	if d.ready() {
		return "serving " + services
	}
	return "serving " + services + ", not all of them have had an answer from Consul yet"
}

// stop takes no more clients after the signal s, and returns when the last connection has ended. Endpoints are followed
// until then.
func (d *Daemon) stop(s os.Signal, signals <-chan os.Signal) error {
	grace := d.cfg.Load().ShutdownGrace
	d.log.Info("stopping", "signal", s.String(), "grace", grace.String())
	d.service.stopping("connections have " + grace.String() + " to finish")
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	why := "shutdown_grace is over"
	stopped := make(chan error, 1)
	go d.shutdown(ctx, stopped)
	cut := ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case err := <-stopped:
			if err != nil && grace > 0 {
				d.log.Warn("stopped, what was still open was cut", "reason", why)
			} else {
				d.log.Info("stopped")
			}
			return nil
		case <-cut:
			cut, late = nil, time.After(cutGrace)
		case <-late:
			return d.stuck()
		case s := <-signals:
			if endsProcess(s) {
				why = "second signal"
				d.log.Warn("cutting connections at once", "signal", s.String())
				cancel()
			}
		}
	}
}

// stuck says that connections could not be cut, and returns ErrStuck.
func (d *Daemon) stuck() error {
	err := d.proxier.Alive(time.Second)
	d.log.Error("stopped, though connections could not be cut: something is stuck", "error", err)
	return ErrStuck
}

func (d *Daemon) shutdown(ctx context.Context, stopped chan<- error) {
	d.running.Go(d.tellStopping) // beside it: a Consul that hangs must hold up nothing
	select {                     // an upgrade that is under way gives up, and puts the proxier back
	case <-d.upgrades.Done():
	case <-time.After(upgradeStop):
	}
	stopped <- d.proxier.Shutdown(ctx)
}

func (d *Daemon) tellStopping() { d.registration().stopping() }

// finish serves the connections that there are to their end, after another process has taken over. A signal to end
// means shutdown_grace from then on, and a second one at once: whoever stops the service means all of its processes.
// Earlier signals are in before.
func (d *Daemon) finish(signals <-chan os.Signal, before ...os.Signal) error {
	go d.admin.stop() // its socket is served already
	d.prober.Close()
	cfg := d.cfg.Load()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var over, late <-chan time.Time
	why, ends := "upgrade_grace is over", 0
	if cfg.UpgradeGrace > 0 {
		over = time.After(cfg.UpgradeGrace)
	}
	cut := func() {
		cancel()
		over, late = nil, time.After(cutGrace)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- d.proxier.Shutdown(ctx) }()
	for {
		var s os.Signal
		if len(before) > 0 {
			s, before = before[0], before[1:]
		} else {
			select {
			case err := <-stopped:
				if err != nil {
					d.log.Warn("stopped, what was still open was cut", "reason", why)
				} else {
					d.log.Info("stopped, the last connection has ended")
				}
				return nil
			case <-over:
				cut()
				continue
			case <-late:
				return d.stuck()
			case s = <-signals:
			}
		}
		switch {
		case !endsProcess(s):
			d.log.Warn("signal ignored", "signal", s.String(), "reason",
				(&upgrade.ReplacedError{By: *d.upgrades.Successor()}).Error())
		case ends > 0:
			why = "second signal"
			cut()
		default:
			ends++
			why, over = "shutdown_grace is over", time.After(cfg.ShutdownGrace)
			d.log.Info("stopping", "signal", s.String(), "grace", cfg.ShutdownGrace.String())
		}
	}
}

// conclude ends what runs beside the proxier.
func (d *Daemon) conclude() {
	d.end()
	d.admin.stop()
	d.access.Stop()
}

// end ends sources, the registration, and all that waits for the end of the daemon.
func (d *Daemon) end() {
	d.toEnd()
	d.cancel()
	// A reload that is under way has sources of its own, and an upgrade has something to say to the other process. One
	// that hangs is left alone: it finds that all has ended.
	d.upgrades.End()
	hangs := !d.reloading.takeWithin(reloadStop)
	select {
	case <-d.upgrades.Done():
	case <-time.After(upgradeStop):
		hangs = true
	}
	d.mu.Lock()
	d.ended = true
	for _, f := range []*endpoints.Input{d.staticFeed, d.consulFeed} {
		if f != nil {
			d.running.Go(f.Stop)
		}
	}
	registered := d.registered
	d.mu.Unlock()
	registered.end()
	d.prober.Close()
	if hangs {
		d.log.Error("a reload or an upgrade hangs, and is left alone")
		return
	}
	d.running.Wait()
}
