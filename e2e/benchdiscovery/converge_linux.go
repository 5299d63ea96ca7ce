package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/sys/unix"
)

// A follower is a proxy that follows the service web in Consul.
type follower struct {
	name string
	addr string // its listen address
	stop func()

	failed int // failed connections
}

// A change is a change of an instance and its expected effect.
type change struct {
	name string
	in   bool // whether the instance gets connections afterwards
	do   func(s *stage, i *instance) error
}

// changes returns all changes, in the order in which they are made in each round.
func changes() []change {
	health := func(status string) func(*stage, *instance) error {
		return func(s *stage, i *instance) error { return s.api.Agent().UpdateTTL("check:"+i.name, "", status) }
	}
	return []change{
		{"register -> first connection", true, (*stage).register},
		{"critical -> last connection", false, health(api.HealthCritical)},
		{"passing -> first connection", true, health(api.HealthPassing)},
		{"deregister -> last connection", false,
			func(s *stage, i *instance) error { return s.api.Agent().ServiceDeregister(i.name) }},
	}
}

// converge measures the time from a change until new connections follow it, for Lictor and for its peers, in turns. The
// service has one more instance. So none of the changes is held, and every other connection shows the state.
func converge(ctx context.Context, o options) error {
	s, err := newStage(ctx)
	if s != nil {
		defer s.close()
	}
	if err != nil {
		return err
	}
	instances, err := newInstances(2)
	if err != nil {
		return err
	}
	for _, i := range instances {
		defer i.close()
	}
	for _, i := range instances[1:] {
		if err := s.register(i); err != nil {
			return err
		}
	}
	all, err := s.followers(ctx, o)
	for _, f := range all {
		defer f.stop()
	}
	if err != nil {
		return err
	}
	w, err := startWatcher(ctx, s, instances[0].name)
	if err != nil {
		return err
	}
	defer w.close()
	times, bare, err := s.measure(ctx, o.changes/4, all, w, instances[0])
	if err != nil {
		return err
	}
	report(all, times, bare)
	return nil
}

// report prints the figures of measure.
func report(all []*follower, times []map[string][]time.Duration, bare map[string][]time.Duration) {
	for _, c := range changes() {
		for k, f := range all {
			row(fmt.Sprintf("%s: %s (p50 / p99, %d times)", f.name, c.name, len(times[k][c.name])), "%s",
				percentiles(times[k][c.name]))
		}
		row(fmt.Sprintf("a bare query: %s (p50 / p99, %d times)", before(c.name), len(bare[c.name])), "%s",
			percentiles(bare[c.name]))
	}
	for _, f := range all {
		row(f.name+": connections that failed meanwhile", "%d", f.failed)
	}
}

// before names what a query can see of a change.
func before(name string) string {
	for i := range name {
		if name[i] == ' ' {
			return name[:i] + " -> answer"
		}
	}
	return name
}

// followers starts Lictor and the peers that the options name.
func (s *stage) followers(ctx context.Context, o options) ([]*follower, error) {
	if err := s.run(ctx, o.lictor, []string{"web"}); err != nil {
		return nil, err
	}
	all := []*follower{{name: "lictor", addr: s.addrs["web"], stop: func() {}}}
	if o.fabio != "" {
		f, err := s.startFabio(o.fabio)
		if err != nil {
			return all, err
		}
		all = append(all, f)
	}
	if o.template != "" {
		f, err := s.startTemplate(o.template, o.haproxy)
		if err != nil {
			return all, err
		}
		all = append(all, f)
	}
	for _, f := range all {
		if err := settled(ctx, f.addr); err != nil {
			return all, fmt.Errorf("%s does not serve: %w", f.name, err)
		}
	}
	return all, nil
}

// measure makes each change for each follower in each of so many rounds. It returns how long each follower and a bare
// query took to see it.
func (s *stage) measure(ctx context.Context, rounds int, all []*follower, w *watcher,
	it *instance) (times []map[string][]time.Duration, bare map[string][]time.Duration, err error) {
	times, bare = make([]map[string][]time.Duration, len(all)), map[string][]time.Duration{}
	for range rounds {
		for k, f := range all {
			if times[k] == nil {
				times[k] = map[string][]time.Duration{}
			}
			for _, c := range changes() {
				begin := time.Now()
				took, failed, err := follow(f.addr, it.name, c.in, closely, func() error { return c.do(s, it) })
				if f.failed += failed; err != nil {
					return nil, nil, fmt.Errorf("%s: %s: %w", f.name, c.name, err)
				}
				at, err := w.saw(ctx, c.in)
				if err != nil {
					return nil, nil, err
				}
				times[k][c.name] = append(times[k][c.name], took)
				bare[c.name] = append(bare[c.name], at.Sub(begin))
				if err := pause(ctx, s.changePause); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	return times, bare, nil
}

// changePause is the time between two changes. It is shorter than between changes by hand, and longer than the pace at
// which Lictor takes an agent's answers for a loop. slowPause is for peers that write and reload a file, which take
// longer.
const (
	changePause = 200 * time.Millisecond
	slowPause   = 500 * time.Millisecond
)

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
		ID: i.name, Name: "web", Address: "127.0.0.1", Port: i.port, Tags: []string{fabioTag},
		Check: &api.AgentServiceCheck{CheckID: "check:" + i.name, TTL: "1h", Status: api.HealthPassing},
	})
}

// closeLook is the time between two connections while one change is followed. It is less than the measured times, but
// long enough that the clients leave the processor to the proxy.
const closeLook = 100 * time.Microsecond

// closely waits closeLook. time.Sleep would take a millisecond at least.
func closely(time.Duration) {
	wait := unix.NsecToTimespec(int64(closeLook))
	_ = unix.Nanosleep(&wait, nil)
}

// absent is the number of connections in a row that show that an instance is out: three rounds of the largest service,
// which has four instances.
const absent = 12

// follow makes a change and connects until the change is followed: until name answers, or has not answered many times
// in a row. Between two connections it calls wait with the time so far. It also counts failed connections.
func follow(addr, name string, in bool, wait func(soFar time.Duration), change func() error) (took time.Duration,
	failed int, err error) {
	begin := time.Now()
	made := make(chan error, 1) // Consul answers this request some time after it has told its watchers
	go func() { made <- change() }()
	last, others := begin, 0
	followed := false
	for time.Since(begin) < time.Minute {
		select {
		case err := <-made:
			if err != nil {
				return 0, failed, &changeError{err}
			}
			made = nil
		default:
		}
		if followed && made == nil {
			return last.Sub(begin), failed, nil
		}
		got, err := ask(addr)
		switch {
		case followed:
		case err != nil:
			failed++
		case got == name:
			last, others = time.Now(), 0
			followed = in
		default:
			others++
			followed = !in && others >= absent && made == nil
		}
		wait(time.Since(begin))
	}
	return 0, failed, fmt.Errorf("%s is not followed within a minute", name)
}

// A changeError means that Consul has refused a change. It says nothing about Lictor.
type changeError struct{ error }

// percentiles returns the median and the 99th percentile.
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
