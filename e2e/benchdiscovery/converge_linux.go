package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
)

// converge measures the time from a change to the first new connection that follows it, or the last that does not. The service has three
// more instances, so that none of the changes is held back.
func converge(ctx context.Context, o options) error {
	s, err := newStage(ctx)
	if s != nil {
		defer s.close()
	}
	if err != nil {
		return err
	}
	instances, err := newInstances(4)
	if err != nil {
		return err
	}
	for _, i := range instances[1:] {
		defer i.close()
		if err := s.api.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: i.name, Name: "web", Address: "127.0.0.1", Port: i.port}); err != nil {
			return err
		}
	}
	defer instances[0].close()
	if err := s.run(ctx, o.lictor, []string{"web"}); err != nil {
		return err
	}
	addr, it := s.addrs["web"], instances[0]
	times := map[string][]time.Duration{}
	for range o.changes / 4 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		steps := []struct {
			name   string
			in     bool
			change func() error
		}{
			{"register -> first connection", true, func() error { return s.register(it) }},
			{"critical -> last connection", false, func() error { return s.api.Agent().UpdateTTL("check:"+it.name, "", api.HealthCritical) }},
			{"passing -> first connection", true, func() error { return s.api.Agent().UpdateTTL("check:"+it.name, "", api.HealthPassing) }},
			{"deregister -> last connection", false, func() error { return s.api.Agent().ServiceDeregister(it.name) }},
		}
		for _, step := range steps {
			took, err := follow(addr, it.name, step.in, closeLook, step.change)
			if err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
			times[step.name] = append(times[step.name], took)
			if err := pause(ctx, changePause); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"register -> first connection", "critical -> last connection", "passing -> first connection", "deregister -> last connection"} {
		row(fmt.Sprintf("%s (p50 / p99, %d times)", name, len(times[name])), "%s", percentiles(times[name]))
	}
	return nil
}

// changePause is the time between two changes: faster than anybody changes a service by hand, and slower than the pace at which Lictor
// takes an agent's answers for a loop.
const changePause = 200 * time.Millisecond

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *stage) register(i *instance) error {
	return s.api.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: i.name, Name: "web", Address: "127.0.0.1", Port: i.port,
		Check: &api.AgentServiceCheck{CheckID: "check:" + i.name, TTL: "1h", Status: api.HealthPassing},
	})
}

// closeLook is the time between two connections when there is one change at a time: less than what is measured, and not so little that the
// clients take the processor from it.
const closeLook = 200 * time.Microsecond

// follow makes a change and connects at this pace until it is followed: until name answers, or has not for three rounds.
func follow(addr, name string, in bool, pace time.Duration, change func() error) (time.Duration, error) {
	begin := time.Now()
	if err := change(); err != nil {
		return 0, &changeError{err}
	}
	last, others := begin, 0
	for time.Since(begin) < time.Minute {
		got, err := ask(addr)
		switch {
		case err != nil:
			return 0, err
		case in && got == name:
			return time.Since(begin), nil
		case got == name:
			last, others = time.Now(), 0
		default:
			others++
		}
		if !in && others == 12 {
			return last.Sub(begin), nil
		}
		time.Sleep(pace)
	}
	return 0, fmt.Errorf("%s is not followed within a minute", name)
}

// A changeError means that Consul did not take a change, which says nothing of Lictor.
type changeError struct{ error }

// percentiles are the median and the 99th percentile.
func percentiles(times []time.Duration) string {
	if len(times) == 0 {
		return "-"
	}
	slices.Sort(times)
	at := func(p int) time.Duration {
		return times[min(len(times)*p/100, len(times)-1)].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("%v / %v", at(50), at(99))
}
