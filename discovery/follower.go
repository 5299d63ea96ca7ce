package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A follower follows a discovery chain of Consul, for all services that share the chain. When the chain leads to other
// targets, the Consul applies its watches again, with the new tiers. While the chain cannot be read or followed, the
// services keep the tiers of the last good chain.
//
// The query for a chain always goes to Consul's servers. Otherwise it is sent like any other: it needs a slot, and has
// a deadline.
type follower struct {
	key    string
	query  Query // normalized; query.chain is set
	consul *Consul
	cancel context.CancelFunc // ends run; nil before run was started; guarded by Consul.mu

	poller   poller
	reporter reporter
	next     question // only run uses it

	left     []LeftOut // targets of the last good answer that are not among targets; guarded by Consul.mu
	targets  []target  // of the last good chain; nil: none yet; guarded by Consul.mu
	answered bool      // targets come from an answer, not from an earlier process; guarded by Consul.mu
}

// chainQuery returns the query for the discovery chain that w follows, normalized.
func (c *Consul) chainQuery(w *Watch) Query {
	q := Query{Service: w.Query.Service, Datacenter: w.Query.Datacenter, chain: true,
		Namespace: w.Query.Namespace, Partition: w.Query.Partition}
	if strings.TrimSpace(q.Service) == "" {
		q.Service = w.Service
	}
	return q.normalize(c.options.Datacenter)
}

// chainKey returns the key of a query for a discovery chain, also in the file of saved sets.
func (c *Consul) chainKey(q *Query) string {
	return fmt.Sprintf("%q", []string{cmp.Or(q.Namespace, c.options.Namespace),
		cmp.Or(q.Partition, c.options.Partition), q.Service, q.Datacenter})
}

// newFollower returns a follower for the query q. If an earlier process has saved the targets of the chain, the
// follower starts with these. Targets from another address of Consul may belong to another cluster, and are not used.
func newFollower(c *Consul, q Query) *follower {
	f := &follower{key: c.chainKey(&q), query: q, consul: c}
	f.reporter = reporter{
		query: &f.query, base: c.options.Logger, onEvent: c.options.OnEvent, troubles: c.troubles, holds: c.holds,
	}
	f.poller = poller{query: &f.query, request: f.query.request(), consul: c, report: &f.reporter}
	f.poller.passed.learn(true)
	if earlier := c.origins.earlier; earlier == nil || earlier.origin.at(c.client) {
		f.targets = c.restoredChains[f.key]
	}
	return f
}

// run asks for the chain repeatedly until ctx ends. run sends the first query after pause.
func (f *follower) run(ctx context.Context, pause time.Duration) {
	defer f.cancel()
	for f.consul.pause(ctx, max(pause, f.poller.pace(time.Now(), f.next)), f.poller.site) && !f.poller.retired.Load() {
		asked := f.poller.due(time.Now(), f.next)
		a, err := f.poller.ask(ctx, asked, &belief{})
		pause = f.take(ctx, asked, &a, err)
	}
}

// take handles the outcome of a query, and returns how long to wait before the next query.
func (f *follower) take(ctx context.Context, asked question, a *answer, err error) time.Duration {
	now := time.Now()
	var targets []target
	var left []LeftOut
	var cannot *ChainError
	switch {
	case ctx.Err() != nil || errors.Is(err, errTurn):
		return 0
	case errors.Is(err, consul.ErrMoved): // the next question has no index
		return f.consul.spread()
	case err == nil && a.index < asked.index:
		f.next = question{}
		f.consul.origins.forget()
		f.consul.client.ForgetCluster()
		f.reporter.disbelieved(wentBack, asked, a)
		return f.poller.disbelieved(now)
	case err == nil:
		targets, left, err = a.chain.compile(f.query.Service, f.home(ctx))
	}
	if err != nil && !errors.As(err, &cannot) {
		f.next.index = 0
		kind := consul.KindOf(err)
		pause := f.poller.failed(now, kind)
		f.reporter.failed(now, kind, err, pause)
		return pause
	}
	f.next = question{index: max(a.index, 1)}
	f.poller.believed(now, asked)
	if cannot != nil {
		f.reporter.cannotFollow(now, a, f.next, cannot)
		return 0
	}
	f.reporter.believed(now, a, f.next)
	f.consul.follow(f, targets, left)
	return 0
}

// home returns where Lictor asks for the chain.
func (f *follower) home(ctx context.Context) home { return f.consul.home(ctx, &f.query) }

// home returns where Lictor asks for the chain of q. The agent's datacenter is found out only if the answer does not
// say it.
func (c *Consul) home(ctx context.Context, q *Query) home {
	h := home{asked: q.Datacenter, namespace: cmp.Or(q.Namespace, c.options.Namespace),
		partition: cmp.Or(q.Partition, c.options.Partition)}
	if h.asked != "" {
		h.datacenter = c.origins.datacenter(ctx)
	}
	return h
}

// follow makes targets the targets of f, and notes those that are left out. If targets are new, the services of f get
// new tiers soon.
func (c *Consul) follow(f *follower, targets []target, left []LeftOut) {
	c.mu.Lock()
	before, leftBefore := f.targets, f.left
	same := slices.Equal(before, targets)
	f.targets, f.left, f.answered = targets, left, true
	c.mu.Unlock()
	for _, one := range left {
		if !slices.Contains(leftBefore, one) {
			f.reporter.logger().Warn("a target of the discovery chain is left out", "target", one.Name,
				"reason", "it "+one.Reason)
		}
	}
	if same {
		return
	}
	f.poller.bucket.news()
	f.reporter.count(func(s *WatchStatus) {
		s.Updates++
		s.LastChange = time.Now()
	})
	if c.store != nil {
		c.store.markDirty()
	}
	if before != nil {
		var names []string
		for i := range targets {
			names = append(names, targets[i].name())
		}
		f.reporter.logger().Info("the discovery chain has changed", "leads_to", shortNames(names))
	}
	select {
	case c.chainNews <- struct{}{}:
	default:
	}
}

// followPause is the time between two changes of the tiers. At the start, many chains become known at about the same
// time, and each change plans all services anew.
const followPause = 20 * time.Millisecond

// applyChains gives the services new tiers when their discovery chains have changed, until ctx ends.
func (c *Consul) applyChains(ctx context.Context) {
	for consul.Sleep(ctx, followPause, nil) {
		select {
		case <-ctx.Done():
			return
		case <-c.chainNews:
		}
		c.mu.Lock()
		if !c.ended {
			c.applyLocked(c.declared)
		}
		c.mu.Unlock()
	}
}

// followLocked makes the followers those that watches need. followLocked returns the new ones, the number of those that
// end, and a function that returns the tiers of a watch.
func (c *Consul) followLocked(watches []Watch) (added []*follower, gone int, tiersOf func(*Watch) []Tier) {
	old := c.followers
	c.followers, c.following = map[string]*follower{}, map[string]*follower{}
	sharers := map[*follower][]string{}
	for i := range watches {
		w := &watches[i]
		if !w.Chain {
			continue
		}
		q := c.chainQuery(w)
		key := c.chainKey(&q)
		f := c.followers[key]
		if f == nil {
			if f = old[key]; f == nil {
				f = newFollower(c, q)
				added = append(added, f)
			}
			delete(old, key)
			c.followers[key] = f
		}
		c.following[w.Service] = f
		sharers[f] = append(sharers[f], w.Service)
	}
	for f, services := range sharers {
		f.reporter.sharers.Store(&services)
	}
	for _, f := range old {
		c.retireLocked(&f.poller, &f.reporter, f.cancel)
	}
	return added, len(old), func(w *Watch) []Tier {
		if !w.Chain {
			return append([]Tier{{Query: w.Query, Guard: w.Guard}}, w.Next...)
		}
		return w.chained(c.following[w.Service].targets)
	}
}

// startFollowerLocked starts the follower f. nth is the position of f among those that are started together.
func (c *Consul) startFollowerLocked(f *follower, nth int) {
	ctx, cancel := context.WithCancel(c.ctx)
	f.cancel = cancel
	c.running.Go(func() { f.run(ctx, time.Duration(nth)*rampStep) })
}

// LookChain asks Consul once for the discovery chain that w follows. It returns the tiers to which the chain leads, and
// the targets that are left out. LookChain returns a *ChainError if Lictor cannot follow the chain, and otherwise the
// errors of Check.
func (c *Consul) LookChain(ctx context.Context, w Watch) ([]Tier, []LeftOut, error) {
	q := c.chainQuery(&w)
	a, err := c.once(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	targets, left, err := a.chain.compile(q.Service, c.home(ctx, &q))
	return w.chained(targets), left, err
}
