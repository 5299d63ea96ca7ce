package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/accesslog"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// firstAnswer limits how long a reload waits for the first sets of new services. After that it opens their listeners
// without sets.
const firstAnswer = 2 * time.Second

// Reload reads the configuration again and applies the differences. The summary says in a few words what changed, and
// what stays pending until a restart or an upgrade. After an error nothing has changed. Reload logs both results. Only
// one reload or upgrade runs at a time: Reload waits for its turn until ctx ends. Of several addresses of Consul,
// Reload returns to the first that answers.
//
// A reload has two phases. First it prepares everything beside the parts in force. If that succeeds, it commits
// everything, which cannot fail. Otherwise it aborts what it has prepared.
func (d *Daemon) Reload(ctx context.Context) (summary string, err error) {
	ctx, cancel := d.untilTheEnd(ctx)
	defer cancel()
	err = d.reloading.take(ctx)
	if err == nil {
		defer d.reloading.giveBack()
	}
	if by := d.upgrades.Successor(); by != nil { // a replaced process must say so, even if it is about to end
		return "", &upgrade.ReplacedError{By: *by}
	}
	if err != nil {
		return "", underWay(err)
	}
	d.service.reloading()
	d.access.Reopen() // for logrotate, which moves the file without a change of the configuration
	d.keys.store.Look()
	client := d.client.Load()
	changes, err := d.reload(ctx)
	if err != nil {
		d.log.Error("not reloaded, the former configuration stays in force", "error", err)
		d.service.ready("not reloaded: " + firstLine(err.Error()))
		return "", err
	}
	d.log.Info("reloaded", "changes", changes.Summary())
	moved := d.goBack(ctx, client)
	for _, p := range d.pendingChanges() {
		d.log.Warn("a changed argument takes effect only after a restart or an upgrade", "argument", p.Argument,
			"in_force", p.InForce, "configured", p.Configured)
	}
	d.service.ready(d.status())
	return changes.Summary() + moved + pendingText(d.pendingChanges()), nil
}

// pendingChanges returns the changes that the last reload left for a restart or an upgrade.
func (d *Daemon) pendingChanges() []config.PendingChange {
	if all := d.pending.Load(); all != nil {
		return *all
	}
	return nil
}

// pendingText lists the arguments of pending changes for the summary. The text is empty if there are no pending
// changes.
func pendingText(all []config.PendingChange) string {
	if len(all) == 0 {
		return ""
	}
	var names []string
	for _, p := range all {
		names = append(names, p.Argument)
	}
	return "; pending until a restart or an upgrade: " + strings.Join(names, ", ")
}

// untilTheEnd returns a context that ends with ctx, or when a signal asks this process to end.
func (d *Daemon) untilTheEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.ending, func() { cancel(upgrade.ErrEnding) })
	return ctx, func() { stop(); cancel(nil) }
}

// underWay returns the error of a reload or an upgrade that did not get its turn because of err.
func underWay(err error) error {
	if errors.Is(err, upgrade.ErrEnding) {
		return err
	}
	return fmt.Errorf("another reload or upgrade is still under way: %w", err)
}

// warn logs the warnings about a configuration.
func (d *Daemon) warn(diags config.Diagnostics) {
	for _, line := range diags.Warnings() {
		d.log.Warn("configuration", "warning", line)
	}
}

func (d *Daemon) reload(ctx context.Context) (*config.Changes, error) {
	next, diags := d.load()
	if diags.HasErrors() {
		return nil, diags.Err()
	}
	d.warn(diags)
	old := d.cfg.Load()
	pending := config.Compare(old, next).Pending()
	next = config.Reloaded(old, next)
	changes := config.Compare(old, next)
	if changes.Empty() {
		d.pending.Store(&pending)
		return changes, nil
	}
	d.detect(old, next)
	inForce := old
	defer func() { d.detect(inForce) }()
	own, keys, exposed, err := d.prepareOwn(next)
	if err != nil {
		return nil, withHints(err)
	}
	sources, err := d.prepareSources(ctx, old, next, exposed)
	if err != nil {
		own.Abort()
		return nil, err
	}
	sources.await(ctx, d.log)
	awaitIdentities(ctx, keys, d.log)
	if err := d.proxier.Apply(append(proxyServices(next, keys), exposedServices(exposed)...)); err != nil {
		sources.abort()
		own.Abort()
		return nil, withHints(err)
	}
	configure(d.balancer, next, keys)
	configureExposed(d.balancer, exposed)
	d.collector.tune(len(next.Services))
	if !sources.commit(next) {
		sources.abort()
		own.Abort()
		return nil, upgrade.ErrEnding
	}
	d.prober.Apply(checksOf(next))
	d.checker.Apply(healthChecksOf(next))
	d.cfg.Store(next)
	d.pending.Store(&pending)
	d.formers.reapply()
	own.Commit()
	inForce = next
	if err := d.register(next); err != nil {
		d.log.Error("not registered", "error", err)
	}
	if next.LogLevel != old.LogLevel {
		d.log.SetLevel(hclog.LevelFromString(next.LogLevel))
	}
	return changes, nil
}

// A step is a prepared part of a reload. The step must be committed or aborted exactly once. A nil function does
// nothing.
type step struct{ commit, abort func() }

// Commit puts the prepared part in force.
func (s step) Commit() {
	if s.commit != nil {
		s.commit()
	}
}

// Abort discards the prepared part.
func (s step) Abort() {
	if s.abort != nil {
		s.abort()
	}
}

// prepareOwn prepares the parts of next that need no endpoints: the admin API's listener, the access log, the TLS of
// the services, the exposed instances, and the kernel path.
func (d *Daemon) prepareOwn(next *config.Config) (step, map[string]*serviceTLS, []exposed, error) {
	api, err := d.admin.prepare(next.Admin)
	if err != nil {
		return step{}, nil, nil, err
	}
	access, err := d.access.Prepare((*accesslog.Options)(next.AccessLog))
	if err != nil {
		api.Abort()
		return step{}, nil, nil, err
	}
	keys, exposed, ends, err := d.prepareTLS(next)
	if err != nil {
		api.Abort()
		access.Abort()
		return step{}, nil, nil, err
	}
	kernelPath, err := d.kernel.prepare(next)
	if err != nil {
		api.Abort()
		access.Abort()
		ends.Abort()
		return step{}, nil, nil, err
	}
	return step{
		commit: func() { api.Commit(); access.Commit(); ends.Commit(); kernelPath.Commit() },
		abort:  func() { api.Abort(); access.Abort(); ends.Abort(); kernelPath.Abort() },
	}, keys, exposed, nil
}

// prepareTLS prepares the TLS of the services of next, and its exposed instances.
func (d *Daemon) prepareTLS(next *config.Config) (map[string]*serviceTLS, []exposed, step, error) {
	identities, err := d.keys.mesh.prepare(next)
	if err != nil {
		return nil, nil, step{}, err
	}
	keys, ends, err := d.keys.prepare(next, identities)
	if err != nil {
		return nil, nil, step{}, err
	}
	all, exposing, err := d.exposed.prepare(next, identities)
	if err != nil {
		ends.Abort()
		return nil, nil, step{}, err
	}
	return keys, all, step{
		commit: func() { ends.Commit(); exposing.Commit() },
		abort:  func() { exposing.Abort(); ends.Abort() },
	}, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
