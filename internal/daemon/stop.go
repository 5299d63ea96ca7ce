package daemon

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// stop ends the daemon after signal s. stop accepts no more clients, and returns when the last connection has ended.
// The sources keep updating endpoints until then.
func (d *Daemon) stop(s os.Signal, signals <-chan os.Signal) error {
	grace := max(d.cfg.Load().ShutdownGrace, 0)
	d.log.Info("stopping", "signal", s.String(), "grace", grace.String())
	d.service.stopping("connections have " + grace.String() + " to finish")
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	why, cuts := "shutdown_grace is over", true
	stopped := make(chan error, 1)
	go d.shutdown(ctx, stopped)
	cut := ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case err := <-stopped:
			if err != nil && grace > 0 && cuts {
				d.log.Warn("stopped, open connections were cut", "reason", why)
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
				if cuts = d.serves(); cuts {
					d.log.Warn("cutting connections at once", "signal", s.String())
				}
				cancel()
			}
		}
	}
}

// serves reports whether a connection or session is open. If the proxier does not answer, serves returns true.
func (d *Daemon) serves() bool {
	open := make(chan bool, 1)
	go func() {
		open <- slices.ContainsFunc(d.Traffic(), func(t Traffic) bool { return t.Open > 0 })
	}()
	select {
	case is := <-open:
		return is
	case <-time.After(time.Second):
		return true
	}
}

// stuck logs that connections could not be cut, and returns ErrStuck.
func (d *Daemon) stuck() error {
	err := d.proxier.Alive(time.Second)
	d.log.Error("stopped, but connections could not be cut: lictor is stuck", "error", err)
	return ErrStuck
}

func (d *Daemon) shutdown(ctx context.Context, stopped chan<- error) {
	d.running.Go(d.tellStopping) // in a goroutine, because a hung Consul must not delay the shutdown
	select {                     // an upgrade that is under way stops, and resumes the proxier
	case <-d.upgrades.Done():
	case <-time.After(upgradeStop):
	}
	d.kernel.close() // before the listeners, which serve new clients from now on
	stopped <- d.proxier.Shutdown(ctx)
}

func (d *Daemon) tellStopping() {
	d.running.Go(d.exposed.drain)
	d.registration().stopping()
}

// finish serves the open connections until they end, after a successor has taken over. Connections on the kernel path
// are counted until they end, and cut as on_leave says. The first signal to end gives the connections shutdown_grace,
// and a second one cuts them at once; finish does not wait for the kernel path then, because its connections go on. A
// service manager that stops Lictor signals all of its processes. The argument before has signals that arrived earlier.
func (d *Daemon) finish(signals <-chan os.Signal, before ...os.Signal) error {
	go d.admin.stop() // the successor serves the admin socket
	d.prober.Close()  // the checker continues, because a failed endpoint's connections may have to end
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
	forKernel, leaveKernel := context.WithCancel(ctx)
	defer leaveKernel()
	go func() {
		err := d.proxier.Shutdown(ctx)
		d.kernel.awaitEnds(forKernel)
		stopped <- err
	}()
	for {
		var s os.Signal
		if len(before) > 0 {
			s, before = before[0], before[1:]
		} else {
			select {
			case err := <-stopped:
				d.tellTheLast()
				if err != nil {
					d.log.Warn("stopped, open connections were cut", "reason", why)
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
			leaveKernel() // those connections go on without this process
			grace := max(cfg.ShutdownGrace, 0)
			why, over = "shutdown_grace is over", time.After(grace)
			d.log.Info("stopping", "signal", s.String(), "grace", grace.String())
		}
	}
}

// conclude ends everything besides the proxier.
func (d *Daemon) conclude() {
	d.end()
	d.admin.stop()
	d.access.Stop()
	d.events.EndLog()
}

// end ends the sources, the registration and all goroutines of the daemon.
func (d *Daemon) end() {
	d.toEnd()
	d.exposed.withdraw()
	d.cancel()
	// A reload that is under way has sources of its own, and an upgrade must tell the other process. A hung reload or
	// upgrade is abandoned; when it continues, it finds that the daemon has ended.
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
	d.kernel.close()
	d.prober.Close()
	d.checker.Close()
	d.resolver.Close()
	if hangs {
		d.log.Error("a reload or an upgrade hangs, lictor ends without waiting for it")
		return
	}
	d.running.Wait()
}
