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

// Bounds of what the end of the process waits for. Each is far more than that takes, unless something is stuck.
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

// obey is Serve until the last connection has ended. It waits for signals and for channels only.
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

// tellWatchdog tells systemd that this process is alive. If err is not nil, it logs that instead.
func (d *Daemon) tellWatchdog(err error) {
	if err != nil {
		d.log.Error("something is stuck, the watchdog is not told that all is well", "error", err)
		return
	}
	d.service.alive()
}

// errDeaf is the error of a daemon that does not take signals.
var errDeaf = errors.New("what takes signals: no answer")

// healthy returns nil if everything that clients and operators depend on answers, or an error that names what does not.
func (d *Daemon) healthy() error {
	return errors.Join(d.hears(), d.proxier.Alive(healthyAfter))
}

// hears returns nil if signals are taken, or errDeaf. It is nil at the start and at the end, when obey does not run.
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
	return "serving " + services + ", not all of them have had an answer from Consul yet"
}
