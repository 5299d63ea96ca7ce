package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// Time limits for the end of the process. Each is far longer than needed, unless something is stuck.
const (
	startGrace   = 3 * time.Second  // from a signal to end until Lictor abandons a start that is under way
	upgradeStop  = 2 * time.Second  // for an upgrade to stop or to complete
	reloadStop   = 2 * time.Second  // for a reload to stop or to complete
	cutGrace     = 10 * time.Second // for connections to be cut
	endGrace     = 10 * time.Second // for everything else
	healthyAfter = 5 * time.Second  // for each checked part to show that it makes progress
)

// endsProcess reports whether signal s asks the process to end.
func endsProcess(s os.Signal) bool { return s != syscall.SIGHUP && s != upgrade.Signal }

// ErrStuck is returned by Run and Serve if connections could not be cut. The log has the details.
var ErrStuck = errors.New("connections could not be cut: something is stuck")

// Run starts a daemon and serves until a signal ends it. Run returns nil, ErrStuck, or the error that prevented the
// start. A signal ends the process even if the start hangs. Other signals wait until the daemon has started.
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
	var over <-chan time.Time // nil until a signal asks the process to end
	giveUp := func() error {
		last := later[len(later)-1]
		err := fmt.Errorf("signal %s: the start did not end in time, perhaps a disk or a file server hangs", last)
		p.Failed(err)
		return err
	}
	for {
		select {
		case o := <-started:
			switch {
			case o.err == nil:
				return o.daemon.Serve(signals, later...)
			case over != nil: // a signal asked the process to end
				return nil
			}
			p.Failed(withHints(o.err))
			return o.err
		case s := <-signals:
			later = append(later, s)
			switch {
			case !endsProcess(s):
			case over != nil: // a second signal
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

// Serve handles signals until one of them ends the process, or until a successor has taken over and the last connection
// has ended. Serve returns nil or ErrStuck. The argument before has signals that arrived earlier.
func (d *Daemon) Serve(signals <-chan os.Signal, before ...os.Signal) error {
	err := d.obey(signals, before)
	if !within(endGrace, d.conclude) {
		d.log.Error("ended without waiting for everything, something outside lictor hangs", "waited", endGrace.String())
	}
	return err
}

// obey is Serve until the last connection has ended. obey waits only for signals and channels.
func (d *Daemon) obey(signals <-chan os.Signal, before []os.Signal) error {
	d.obeying.Store(true)
	d.service.ready(d.status())
	alive, stopTicks := d.service.ticks()
	defer stopTicks()
	ready := d.mux.Ready()
	var checked chan error // receives the result of a health check; nil if none is under way
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
			select { // a successor has just taken over
			case <-d.upgrades.Replaced():
			case <-time.After(upgradeStop):
			}
			return d.finish(signals, s)
		}
	}
}

// tellWatchdog tells systemd that this process is healthy. If err is not nil, it logs the error instead.
func (d *Daemon) tellWatchdog(err error) {
	if err != nil {
		d.log.Error("lictor is stuck, so the systemd watchdog gets no sign of life", "error", err)
		return
	}
	d.service.alive()
}

// errDeaf says that the daemon does not handle signals.
var errDeaf = errors.New("signal handling: no answer")

// healthy returns nil if every part that clients and operators depend on responds. Otherwise the error names the parts
// that do not.
func (d *Daemon) healthy() error {
	return errors.Join(d.hears(), d.proxier.Alive(healthyAfter))
}

// hears returns nil if the daemon handles signals, and errDeaf otherwise. hears returns nil at the start and at the
// end, when obey does not run.
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

// status returns the daemon's state in one line, for systemd.
func (d *Daemon) status() string {
	services := config.Plural(len(d.cfg.Load().Services), "service")
	if d.ready() {
		return "serving " + services
	}
	return "serving " + services + ", some still wait for an answer from Consul"
}
