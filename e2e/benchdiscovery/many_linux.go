package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/sys/unix"
)

const node = "bench" // node of the instances, without an agent

// many measures n services of three instances each: the time to the first answers, and memory and processor time while
// nothing changes. With changes it also measures convergence under a steady rate of changes.
func many(ctx context.Context, o options, n int, changes bool) error {
	s, err := newStage(ctx)
	if s != nil {
		defer s.close()
	}
	if err != nil {
		return err
	}
	instances, err := newInstances(3)
	if err != nil {
		return err
	}
	n = min(n, affordable())
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("s%d", i))
	}
	for _, i := range instances {
		defer i.close()
	}
	if err := s.populate(names, instances); err != nil {
		return err
	}
	if err := s.run(ctx, o.lictor, names); err != nil {
		return err
	}
	row(fmt.Sprintf("%d services x 3: time to all sets", n), "%v", s.readyAfter())
	if err := s.atRest(ctx, o, n); err != nil {
		return err
	}
	if changes {
		return s.churn(ctx, o, names)
	}
	return nil
}

// affordable returns how many services the limit of descriptors allows. Lictor counts two descriptors for each
// listener. It keeps almost 400 for everything else, and 4 for each processor.
func affordable() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Max > 1<<20 {
		return 1 << 19
	}
	const others, each = 400, 4
	return max(int(limit.Max)-others-each*runtime.NumCPU(), 2) / 2
}

// atRest measures memory and processor time while nothing changes.
func (s *stage) atRest(ctx context.Context, o options, n int) error {
	if err := pause(ctx, 5*time.Second); err != nil { // until every query is waiting
		return err
	}
	before, err := s.processor()
	if err != nil {
		return err
	}
	if err := pause(ctx, o.idle); err != nil {
		return err
	}
	after, err := s.processor()
	if err != nil {
		return err
	}
	memory, err := s.memory()
	if err != nil {
		return err
	}
	row(fmt.Sprintf("%d services x 3: resident memory", n), "%.0f MB", memory)
	row(fmt.Sprintf("%d services x 3: processor time while nothing changes, over %v", n, o.idle), "%.2f %%",
		100*(after-before).Seconds()/o.idle.Seconds())
	return nil
}

// populate registers three instances of each service, many at a time.
func (s *stage) populate(names []string, instances []*instance) error {
	if _, err := s.api.Catalog().Register(&api.CatalogRegistration{Node: node, Address: "127.0.0.1"}, nil); err != nil {
		return err
	}
	var ops api.TxnOps
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		ok, response, _, err := s.api.Txn().Txn(ops, nil)
		if err == nil && !ok {
			err = fmt.Errorf("registration: %v", response.Errors)
		}
		ops = ops[:0]
		return err
	}
	for _, name := range names {
		for _, i := range instances {
			ops = append(ops, &api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: node,
				Service: api.AgentService{
					ID: name + i.name, Service: name, Address: "127.0.0.1", Port: i.port,
				}}})
			if len(ops) >= 60 {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// farLook is the time between two connections to a service while a hundred services or more are followed at once.
const farLook = 5 * time.Millisecond

// patiently waits farLook, or a tenth of the time so far if that is longer. Otherwise the clients of slow changes would
// take the processor from Consul.
func patiently(soFar time.Duration) { time.Sleep(max(farLook, soFar/10)) }

// churn adds and removes a fourth instance of one service after another at a steady rate. It measures when new
// connections follow each change.
func (s *stage) churn(ctx context.Context, o options, names []string) error {
	extra, err := newInstance("extra")
	if err != nil {
		return err
	}
	defer extra.close()
	var mu sync.Mutex
	var times, consul []time.Duration
	var failures, refused, lost int
	var running sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(o.rate))
	defer tick.Stop()
	end := time.After(o.duration)
	before, err := s.processor()
	if err != nil {
		return err
	}
	for k := 0; ; k++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			after, err := s.processor()
			if err != nil {
				return err
			}
			running.Wait()
			row(fmt.Sprintf("%d changes a second over %d services for %v: convergence (p50 / p99)", o.rate,
				len(names), o.duration), "%s", percentiles(times))
			row("the same: until Consul said that it had taken the change (p50 / p99)", "%s", percentiles(consul))
			row("the same: processor time", "%.0f %%", 100*(after-before).Seconds()/o.duration.Seconds())
			row("the same: client errors; of so many changes, those not followed in a minute, those that Consul "+
				"did not take", "%d; %d, %d, %d",
				failures, len(times)+lost+refused, lost, refused)
			return nil
		case <-tick.C:
		}
		name, add := names[k%len(names)], k/len(names)%2 == 0
		running.Go(func() {
			var accepted atomic.Int64 // the change may go on after follow has given up
			took, failed, err := follow(s.addrs[name], extra.name, add, patiently, func() error {
				begin := time.Now()
				err := s.fourth(name, extra, add)
				accepted.Store(int64(time.Since(begin)))
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if took := accepted.Load(); took > 0 {
				consul = append(consul, time.Duration(took))
			}
			failures += failed
			var change *changeError
			switch {
			case errors.As(err, &change):
				refused++
			case err != nil:
				lost++
			default:
				times = append(times, took)
			}
		})
	}
}

// fourth adds or removes the fourth instance of a service.
func (s *stage) fourth(service string, i *instance, add bool) error {
	if add {
		_, err := s.api.Catalog().Register(&api.CatalogRegistration{Node: node, Address: "127.0.0.1",
			SkipNodeUpdate: true, Service: &api.AgentService{
				ID: service + i.name, Service: service, Address: "127.0.0.1", Port: i.port,
			}}, nil)
		return err
	}
	_, err := s.api.Catalog().Deregister(&api.CatalogDeregistration{Node: node, ServiceID: service + i.name}, nil)
	return err
}
