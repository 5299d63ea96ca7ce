package daemon

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/accesslog"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

// firstAnswer is how long a reload waits for the first sets of new services, before it opens their listeners without.
const firstAnswer = 2 * time.Second

// Reload reads the configuration again and applies what is different. It returns what has changed, in a few words.
// After an error, everything is as it was. It logs both. One reload or upgrade runs at a time: Reload waits for its
// turn until ctx ends.
//
// What a reload changes has two phases. Everything is prepared first, beside what is in force. Then all of it is
// committed, which cannot fail; or, if something could not be prepared, what was prepared is aborted.
func (d *Daemon) Reload(ctx context.Context) (summary string, err error) {
	ctx, cancel := d.untilTheEnd(ctx)
	defer cancel()
	if err := d.reloading.take(ctx); err != nil {
		return "", underWay(err)
	}
	defer d.reloading.giveBack()
	if by := d.upgrades.Successor(); by != nil {
		return "", &upgrade.ReplacedError{By: *by}
	}
	d.service.reloading()
	d.access.Reopen() // for logrotate, whose files may have moved though the configuration has not
	changes, err := d.reload(ctx)
	if err != nil {
		d.log.Error("not reloaded, nothing has changed", "error", err)
		d.service.ready("not reloaded: " + firstLine(err.Error()))
		return "", err
	}
	d.log.Info("reloaded", "changes", changes.Summary())
	for _, name := range changes.NeedRestart() {
		d.log.Warn("changed in the configuration, but takes a restart", "argument", name)
	}
	d.service.ready(d.status())
	return changes.Summary(), nil
}

// untilTheEnd returns a context that ends with ctx, and when this process is to end.
func (d *Daemon) untilTheEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.ending, func() { cancel(upgrade.ErrEnding) })
	return ctx, func() { stop(); cancel(nil) }
}

// underWay returns the error of a reload or an upgrade that did not get its turn, because of err.
func underWay(err error) error {
	if errors.Is(err, upgrade.ErrEnding) {
		return err
	}
	return fmt.Errorf("another reload or upgrade is still under way: %w", err)
}

func (d *Daemon) reload(ctx context.Context) (*config.Changes, error) {
	next, diags := d.load()
	if diags.HasErrors() {
		return nil, diags.Err()
	}
	old := d.cfg.Load()
	changes := config.Compare(old, next)
	if changes.Empty() {
		return changes, nil
	}
	d.detect(old, next)
	inForce := old
	defer func() { d.detect(inForce) }()
	own, err := d.prepareOwn(next)
	if err != nil {
		return nil, withHints(err)
	}
	sources, err := d.prepareSources(ctx, old, next)
	if err != nil {
		own.Abort()
		return nil, err
	}
	sources.await(ctx, d.log)
	if err := d.proxier.Apply(proxyServices(next)); err != nil {
		sources.abort()
		own.Abort()
		return nil, withHints(err)
	}
	configure(d.balancer, next)
	tuneCollector(len(next.Services))
	if !sources.commit(next) {
		sources.abort()
		own.Abort()
		return nil, upgrade.ErrEnding
	}
	d.prober.Apply(checksOf(next))
	d.cfg.Store(next)
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

// A step is a part of a reload that has been prepared. It is committed or aborted, once. A nil function does nothing.
type step struct{ commit, abort func() }

// Commit puts what was prepared in force.
func (s step) Commit() {
	if s.commit != nil {
		s.commit()
	}
}

// Abort gives up what was prepared.
func (s step) Abort() {
	if s.abort != nil {
		s.abort()
	}
}

// prepareOwn prepares what next needs that is not of a service: the listener of the admin API, the access log.
func (d *Daemon) prepareOwn(next *config.Config) (step, error) {
	api, err := d.admin.prepare(next.Admin)
	if err != nil {
		return step{}, err
	}
	access, err := d.access.Prepare((*accesslog.Options)(next.AccessLog))
	if err != nil {
		api.Abort()
		return step{}, err
	}
	return step{
		commit: func() { api.Commit(); access.Commit() },
		abort:  func() { api.Abort(); access.Abort() },
	}, nil
}

// sources are those of a configuration that is about to be in force.
type sources struct {
	d              *Daemon
	static, consul *endpoints.Input // nil: there is none
	client         *discovery.Consul
	sameConsul     bool            // consul is the one that is in force
	old            *config.Config  // not nil: consul is the one that is in force, but watches something else than by this
	doubt          map[string]bool // services that it watches in another way
}

// prepareSources starts the sources that next needs and old does not have.
func (d *Daemon) prepareSources(ctx context.Context, old, next *config.Config) (*sources, error) {
	s := &sources{d: d, client: d.consul.Load(), consul: d.consulFeed}
	watches := watchesOf(next)
	s.sameConsul = old.Consul == next.Consul && reflect.DeepEqual(watchesOf(old), watches)
	switch {
	case s.sameConsul:
	case old.Consul == next.Consul && s.client != nil && len(watches) > 0:
		if err := d.refusals(ctx, next, s.client); err != nil {
			return nil, err
		}
		d.mux.Extend(d.consulFeed, consulNames(next))
		if err := s.client.Apply(watches); err != nil {
			d.mux.Abort(d.consulFeed, nil)
			return nil, err
		}
		s.sameConsul, s.old, s.doubt = true, old, changedWatches(watchesOf(old), watches)
	default:
		client, err := d.newConsul(next, nil)
		if err != nil {
			return nil, err
		}
		if client != nil {
			if err := d.refusals(ctx, next, client); err != nil {
				return nil, err
			}
		}
		s.client, s.consul = client, nil
		if client != nil {
			s.consul = d.mux.Start(client, consulNames(next), d.log)
		}
	}
	s.static = d.startStatic(next)
	return s, nil
}

// await gives new services a moment to get their first sets.
func (s *sources) await(ctx context.Context, log hclog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	for _, f := range []*endpoints.Input{s.static, s.consul} {
		if f == nil {
			continue
		}
		select {
		case <-f.FirstSets():
		case <-f.Ended():
		case <-ctx.Done():
			log.Warn("new services have no endpoints yet")
			return
		}
	}
}

// abort ends what prepareSources started.
func (s *sources) abort() {
	if s.old != nil {
		s.d.mux.Abort(s.consul, s.doubt)
		if err := s.client.Apply(watchesOf(s.old)); err != nil {
			s.d.log.Error("services in consul are not followed as before, reload again", "error", err)
		}
	}
	if s.consul != nil && !s.sameConsul {
		s.d.mux.Abort(s.consul, nil)
	}
	if s.static != nil {
		s.d.mux.Abort(s.static, nil)
	}
}

// changedWatches are the services that are not watched by next as they are by old.
func changedWatches(old, next []discovery.Watch) map[string]bool {
	byName := make(map[string]discovery.Watch, len(next))
	for _, w := range next {
		byName[w.Service] = w
	}
	names := map[string]bool{}
	for _, w := range old {
		if !reflect.DeepEqual(w, byName[w.Service]) {
			names[w.Service] = true
		}
	}
	return names
}

// commit puts the sources in force, in place of those that were. The former ones go on until they have a successor that
// knows as much. It returns false if the daemon has ended meanwhile.
func (s *sources) commit(next *config.Config) bool {
	d := s.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return false
	}
	var feeds []*endpoints.Input
	retire := func(old, successor *endpoints.Input) {
		if successor != nil {
			feeds = append(feeds, successor)
		}
		if old != nil && old != successor {
			d.running.Go(old.Retirement(successor))
		}
	}
	retire(d.staticFeed, s.static)
	retire(d.consulFeed, s.consul)
	d.mux.Commit(serviceNames(next), feeds...)
	d.staticFeed, d.consulFeed = s.static, s.consul
	d.consul.Store(s.client)
	return true
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
