package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/internal/testpatroni"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// settle is how long writers are watched after a primary is back: longer than both proxies take to see a change. calm
// is how long writers are watched before each scenario.
const (
	settle = 10 * time.Second
	calm   = 3 * time.Second
)

// A scenario is one kind of failure of the database.
type scenario struct {
	name   string
	paused bool // pause Patroni meanwhile, so that it leaves PostgreSQL alone
	// act causes the failure. It returns a function that ends the failure, or nil if there is nothing to end. Call
	// the function once there is a primary again.
	act func(ctx context.Context, c *testpatroni.Cluster, leader *testpatroni.Member) (mend func() error, err error)
}

var scenarios = []scenario{
	{name: "restart of Patroni on the leader, paused", paused: true, act: restart},
	{name: "switchover", act: switchover},
	{name: "kill -9 of Patroni and PostgreSQL", act: killBoth},
	{name: "kill -9 of Patroni alone", act: killPatroni},
	{name: "frozen leader", act: freeze},
}

func restart(_ context.Context, _ *testpatroni.Cluster, leader *testpatroni.Member) (func() error, error) {
	leader.StopPatroni()
	return nil, leader.Start()
}

func switchover(ctx context.Context, c *testpatroni.Cluster, _ *testpatroni.Member) (func() error, error) {
	return nil, c.Switchover(ctx)
}

func killBoth(ctx context.Context, c *testpatroni.Cluster, leader *testpatroni.Member) (func() error, error) {
	leader.KillPatroni()
	leader.KillPostgres()
	return leader.Start, awaitFailover(ctx, c, leader)
}

func killPatroni(ctx context.Context, c *testpatroni.Cluster, leader *testpatroni.Member) (func() error, error) {
	leader.KillPatroni()
	return leader.Start, awaitFailover(ctx, c, leader)
}

func freeze(ctx context.Context, c *testpatroni.Cluster, leader *testpatroni.Member) (func() error, error) {
	leader.Freeze()
	return func() error { leader.Thaw(); return nil }, awaitFailover(ctx, c, leader)
}

// awaitFailover waits until another member is the primary.
func awaitFailover(ctx context.Context, c *testpatroni.Cluster, old *testpatroni.Member) error {
	return testproc.Poll(ctx, func() error {
		for _, m := range c.Members {
			if m != old && m.IsPrimary(ctx) {
				return nil
			}
		}
		return errors.New("no other member is the primary")
	})
}

// A result holds what the writers through each proxy have seen in one run.
type result struct {
	lictor, haproxy testpatroni.Tally
}

// measure runs a scenario once and leaves a healthy cluster.
func (s *stage) measure(ctx context.Context, sc scenario) (r result, err error) {
	if err := s.ready(ctx); err != nil {
		return r, fmt.Errorf("before: %w", err)
	}
	if sc.paused {
		if err := s.cluster.Pause(ctx, true); err != nil {
			return r, err
		}
	}
	leader := s.cluster.Leader(ctx)
	if leader == nil {
		return r, errors.New("no member is the primary")
	}
	s.lictor.Reset()
	s.haproxy.Reset()
	began := time.Now()
	s.say("%s: %s", sc.name, leader.Name)
	mend, err := sc.act(ctx, s.cluster, leader)
	if err != nil {
		return r, err
	}
	s.say("there is a primary after %.1fs", time.Since(began).Seconds())
	if err := s.awaitWriters(ctx, time.Now()); err != nil {
		return r, err
	}
	sleep(ctx, settle)
	if mend != nil {
		if err := mend(); err != nil {
			return r, err
		}
	}
	if sc.paused {
		if err := s.cluster.Pause(ctx, false); err != nil {
			return r, err
		}
	}
	return s.finish(ctx, began)
}

// finish waits until the cluster is healthy again, and returns what the writers have seen so far.
func (s *stage) finish(ctx context.Context, began time.Time) (r result, err error) {
	if err := s.cluster.AwaitHealthy(ctx); err != nil {
		return r, fmt.Errorf("afterwards: %w", err)
	}
	if err := s.awaitWriters(ctx, time.Now()); err != nil {
		return r, err
	}
	if err := s.cluster.Lost(ctx, s.lictor, s.haproxy); err != nil {
		return r, err
	}
	r = result{s.lictor.Tally(), s.haproxy.Tally()}
	s.tell("Lictor", r.lictor, began)
	s.tell("HAProxy", r.haproxy, began)
	return r, nil
}

// ready waits until the cluster is healthy, also in Consul, and all writers write. Then it empties the writers' table.
func (s *stage) ready(ctx context.Context) error {
	if err := s.cluster.AwaitHealthy(ctx); err != nil {
		return err
	}
	client, err := s.consul.Client()
	if err != nil {
		return err
	}
	err = testproc.Poll(ctx, func() error {
		passing, _, err := client.Health().Service(testpatroni.Scope, "", true, nil)
		if err == nil && len(passing) != len(s.cluster.Members) {
			err = fmt.Errorf("%d members pass their checks in Consul", len(passing))
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.awaitWriters(ctx, time.Now()); err != nil {
		return err
	}
	sleep(ctx, calm)
	return s.cluster.Prepare(ctx)
}

// tell prints what the writers through one proxy have seen.
func (s *stage) tell(proxy string, t testpatroni.Tally, began time.Time) {
	s.say("%-8s outage %.2fs, %d writes, %d lost, %d read-only errors, %d other errors", proxy, t.Outage.Seconds(),
		t.Writes, t.Lost, t.ReadOnly, t.Errors)
	seen := map[string]int{}
	for _, f := range t.Log {
		text := cause(f.Err)
		if seen[text]++; seen[text] == 1 {
			s.say("    first after %.2fs: %s", f.Time.Sub(began).Seconds(), text)
		}
	}
}

// cause returns an error's text without addresses, which differ from error to error.
func cause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && !errors.As(err, new(*testpatroni.Error)) {
		return op.Op + ": " + op.Err.Error()
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
