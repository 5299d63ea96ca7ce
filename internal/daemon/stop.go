package daemon

import (
	"context"
	"os"
	"time"

	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// stop takes no more clients after the signal s, and returns when the last connection has ended. Endpoints are followed
// until then.
func (d *Daemon) stop(s os.Signal, signals <-chan os.Signal) error {
	grace := max(d.cfg.Load().ShutdownGrace, 0)
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

// stuck logs that connections could not be cut, and returns ErrStuck.
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
	d.prober.Close()  // but not the checker: connections to an endpoint that fails may have to end
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
			grace := max(cfg.ShutdownGrace, 0)
			why, over = "shutdown_grace is over", time.After(grace)
			d.log.Info("stopping", "signal", s.String(), "grace", grace.String())
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
	for _, f := range []*endpoints.Input{d.staticInput, d.consulInput} {
		if f != nil {
			d.running.Go(f.Stop)
		}
	}
	registered := d.registered
	d.mu.Unlock()
	registered.end()
	d.formers.stop()
	d.prober.Close()
	d.checker.Close()
	d.resolver.Close()
	if hangs {
		d.log.Error("a reload or an upgrade hangs, and is left alone")
		return
	}
	d.running.Wait()
}
