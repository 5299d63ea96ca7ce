package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Consul is a Source that follows the catalog of a Consul agent. Its methods may be called concurrently.
type Consul struct {
	options  ConsulOptions // with defaults
	client   *client
	watches  []*watch // one for each distinct query
	troubles *troubles

	ran   atomic.Bool
	epoch *epoch // set by Run before it starts anything
}

// NewConsul returns a source for o. It reads the files that o names, but does not use the network. Errors are of unreadable files,
// addresses that are none, and two watches for one service.
func NewConsul(o ConsulOptions) (*Consul, error) {
	o = o.withDefaults()
	target, err := parseTarget(o.Address)
	if err != nil {
		return nil, err
	}
	transport, err := newTransport(target, o.TLS, len(o.Watches))
	if err != nil {
		return nil, err
	}
	return newConsul(o, target, transport)
}

// newConsul is NewConsul over any transport. o has its defaults.
func newConsul(o ConsulOptions, t target, rt http.RoundTripper) (*Consul, error) {
	client, err := newClient(o, t.base, rt)
	if err != nil {
		return nil, err
	}
	c := &Consul{options: o, client: client, troubles: newTroubles(o.Logger)}
	if c.watches, err = group(o.Watches, o.Datacenter); err != nil {
		return nil, err
	}
	for _, w := range c.watches {
		w.consul = c
		w.log = o.Logger.With("service", w.name())
	}
	return c, nil
}

// Run watches until ctx ends, and then returns nil. The first set of a service is sent when Consul has first answered for it;
// until then sink does not hear of the service. While Consul is away, nothing is sent. A second call returns an error.
func (c *Consul) Run(ctx context.Context, sink Sink) error {
	if c.ran.Swap(true) {
		return errors.New("the source has run already")
	}
	c.epoch = newEpoch(ctx)
	defer c.client.http.CloseIdleConnections()
	c.warmUp(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	for i, w := range c.watches {
		running.Go(func() { w.run(ctx, sink, time.Duration(i)*rampStep) })
	}
	if c.options.ProbeInterval > 0 && len(c.watches) > 0 {
		running.Go(func() { c.probe(ctx) })
	}
	<-ctx.Done()
	return nil
}

// warmUp opens the first connection. Queries that find one can share it if it is HTTP/2; those that find none each dial.
// That there is no answer is for the queries to find out.
func (c *Consul) warmUp(ctx context.Context) {
	if len(c.watches) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = c.client.ping(ctx)
}

// Check asks Consul for q once. It returns nil if Consul answers, whatever the answer, and a *RefusedError if Consul never will.
// Any other error means that Consul could not be asked or could not answer now, and says nothing about q.
func (c *Consul) Check(ctx context.Context, q Query) error {
	ctx, cancel := context.WithTimeoutCause(ctx, deadlineGrace, &timeoutError{deadlineGrace})
	defer cancel()
	_, err := c.client.health(ctx, q.normalize(c.options.Datacenter), 0, 0)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case kindOf(err) == refused:
		return &RefusedError{Query: q, Reason: reason(err)}
	}
	return fmt.Errorf("ask consul for service %q: %w", q.Service, err)
}
