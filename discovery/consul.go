package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// Consul is a Source that follows the catalog of a Consul agent. Its methods may be called concurrently.
type Consul struct {
	options  ConsulOptions // with defaults
	client   *consul.Client
	troubles *troubles
	store    *store // nil: nothing is saved
	streams  fact   // the agent has views of its own of the catalog
	lag      lag

	ran       atomic.Bool
	mu        sync.Mutex           // guards the following, and makes one Apply wait for another
	watches   []*watch             // one for each distinct query, in the order in which they were asked for
	selectors map[string]*selector // by service
	ctx       context.Context      // of Run; nil before
	sink      Sink                 // of Run; does not change while watches run
	restored  map[string]savedSet  // by query; only for watches that are made before Run
	ended     bool                 // nothing may be added to running any more
	running   sync.WaitGroup       // Run's goroutines

	// Set by Run before it starts anything.
	epoch *epoch
	slots *slots // nil: any number of queries may be under way at once
}

// NewConsul returns a source for o. It reads the files that o names, but does not use the network. Errors are of unreadable files,
// addresses that are none, and two watches for one service.
func NewConsul(o ConsulOptions) (*Consul, error) {
	o = o.withDefaults()
	client, err := consul.New(o.client())
	if err != nil {
		return nil, err
	}
	return newConsul(o, client)
}

// newConsul is NewConsul with any client. o has its defaults.
func newConsul(o ConsulOptions, client *consul.Client) (*Consul, error) {
	c := &Consul{options: o, client: client, troubles: newTroubles(o.Logger), selectors: map[string]*selector{}}
	c.restored = map[string]savedSet{}
	for _, s := range c.earlier() {
		c.restored[s.query] = s
	}
	c.troubles.saved = len(c.restored) > 0
	if err := c.Apply(o.Watches); err != nil {
		return nil, err
	}
	return c, nil
}

// earlier opens the store, if there is to be one, and returns the sets of an earlier process.
func (c *Consul) earlier() []savedSet {
	if c.options.StateDir != "" {
		c.store = newStore(c.options.StateDir, c.options.Logger)
	}
	if len(c.options.Saved) > 0 {
		sets, err := decodeSaved(c.options.Saved)
		if err == nil {
			return sets
		}
		c.options.Logger.Warn("endpoints of the earlier process cannot be used", "reason", err)
	}
	if c.store == nil {
		return nil
	}
	return c.store.load()
}

// Save returns the sets as they are, for ConsulOptions.Saved of another process.
func (c *Consul) Save() ([]byte, error) { return encodeSaved(c.collect()) }

// HoldState has nothing written to StateDir while on: another process writes there.
func (c *Consul) HoldState(on bool) {
	if c.store != nil {
		c.store.hold(on)
	}
}

// Run watches until ctx ends, and then returns nil. The first set of a service is sent when Consul has first answered for it;
// until then sink does not hear of the service. While Consul is away, nothing is sent. A second call returns an error.
func (c *Consul) Run(ctx context.Context, sink Sink) error {
	if c.ran.Swap(true) {
		return errors.New("the source has run already")
	}
	c.warmUp(ctx)
	c.begin(ctx, sink)
	<-ctx.Done()
	c.mu.Lock()
	c.ended = true
	for _, f := range c.selectors {
		f.close()
	}
	c.mu.Unlock()
	c.running.Wait()
	c.client.CloseIdle()
	return nil
}

// begin starts what runs until ctx ends.
func (c *Consul) begin(ctx context.Context, sink Sink) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx, c.sink, c.epoch, c.restored = ctx, sink, newEpoch(nil), nil
	if !c.client.Multiplexes() && c.options.MaxWatches > 0 {
		c.slots = newSlots(c.options.MaxWatches, c.options.Logger)
		c.slots.want(len(c.watches))
	}
	if c.store != nil {
		c.running.Go(func() { c.store.run(ctx, c.collect) })
	}
	for _, f := range c.selectors {
		f.begin()
	}
	for i, w := range c.watches {
		c.startLocked(w, i)
	}
	if c.options.ProbeInterval > 0 {
		c.running.Go(func() { c.probe(ctx) })
	}
}

// startLocked starts w as the nth of several that are started together.
func (c *Consul) startLocked(w *watch, nth int) {
	ctx, cancel := context.WithCancel(c.ctx)
	w.cancel = cancel
	c.running.Go(func() { w.run(ctx, time.Duration(nth)*rampStep) })
}

// Saved returns the sets that an earlier process has saved, of all services that had the same query then. To serve them while Consul
// has not answered yet, pass them on to the balancer before Run; Run does not. They are in use, as Consul's word of some time ago,
// until Consul has said something newer.
func (c *Consul) Saved() []lb.Endpoints {
	var sets []lb.Endpoints
	for _, f := range c.selectorsInOrder() {
		if endpoints, saved := f.saved(); saved {
			sets = append(sets, lb.Endpoints{Service: f.service, Endpoints: endpoints})
		}
	}
	return sets
}

// collect returns what is to be saved.
func (c *Consul) collect() []savedSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sets []savedSet
	seen := map[string]bool{}
	for _, w := range c.watches {
		key := c.savedKey(w)
		if set, known := w.publisher.saved(key); known && !seen[key] { // watches may differ in their guards only
			seen[key] = true
			sets = append(sets, set)
		}
	}
	return sets
}

// savedKey is the name of w's query in the file. Where the agent is does not matter: it is reached by one way today and by another
// tomorrow, and corrects what is wrong as soon as it answers.
func (c *Consul) savedKey(w *watch) string {
	return fmt.Sprintf("%q %q %s", c.options.Namespace, c.options.Partition, w.query.key())
}

// warmUp opens the first connection. Queries that find one can share it if it is HTTP/2, which shows then; those that find none each dial.
// That there is no answer is for the queries to find out.
func (c *Consul) warmUp(ctx context.Context) {
	if c.watching() < 2 && !c.client.Multiplexes() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = c.client.Ping(ctx)
}

// watching is how many queries are watched.
func (c *Consul) watching() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.watches)
}

// A RefusedError is returned by Consul.Check for a query that Consul will not answer however often it is asked: a filter that it
// cannot parse, or an argument that only Consul Enterprise knows.
type RefusedError struct {
	Query  Query
	Reason string // in Consul's words, without what only its programmers want to know
}

func (e *RefusedError) Error() string { return "consul refuses the query: " + e.Reason }

// Check asks Consul for q once. It returns nil if Consul answers, whatever the answer, and a *RefusedError if Consul never will.
// Any other error means that Consul could not be asked or could not answer now, and says nothing about q.
func (c *Consul) Check(ctx context.Context, q Query) error {
	_, err := c.once(ctx, q)
	return err
}

// Look returns the instances that q comes to now, in and out. Its errors are Check's, and one that says which right the token lacks, if it
// may not see what there is, or that there is no such cluster peering.
func (c *Consul) Look(ctx context.Context, q Query) ([]Instance, error) {
	a, err := c.once(ctx, q)
	if err != nil {
		return nil, err
	}
	q = q.normalize(c.options.Datacenter)
	if a.filtered && len(a.entries) == 0 {
		return nil, &consul.MissingRightError{Missing: c.client.MissingRight(ctx, q.Service, q.Datacenter)}
	}
	if q.Peer != "" && len(a.entries) == 0 {
		if err := c.client.Peering(ctx, q.Peer); err != nil {
			return nil, err
		}
	}
	return convert(a.entries, q.Statuses).all, nil
}

// once asks Consul for q once.
func (c *Consul) once(ctx context.Context, q Query) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, consul.Grace, &consul.TimeoutError{After: consul.Grace})
	defer cancel()
	normal := q.normalize(c.options.Datacenter)
	a, err := c.health(ctx, &normal, ask{})
	switch {
	case err == nil:
		return a, nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case consul.KindOf(err) == consul.Refused:
		return answer{}, &RefusedError{Query: q, Reason: consul.Reason(err)}
	}
	return answer{}, fmt.Errorf("ask consul for service %q: %w", q.Service, err)
}
