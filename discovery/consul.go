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
	streams  fact   // the agent has its own view of the catalog
	lag      lag
	origins  origins
	patience patience
	noToken  atomic.Bool // warnOfNoToken has warned

	ran       atomic.Bool
	mu        sync.Mutex           // guards the following; one Apply waits for another
	watches   []*watch             // one for each distinct query, in the order of the configuration
	selectors map[string]*selector // by service
	byService sync.Map             // what selectors has, for callers that must not wait; not guarded
	ctx       context.Context      // of Run; nil before
	sink      Sink                 // of Run; does not change then
	restored  map[string]savedSet  // by query, of an earlier process; for watches that are made before Run
	ended     bool                 // nothing may be added to running
	running   sync.WaitGroup       // Run's goroutines

	// Set by Run before it starts anything.
	epoch *epoch
	slots *slots // nil: the number of queries under way is not bounded
}

// NewConsul returns a source for o. It reads the files that o names, but does not use the network. The errors are of
// those files, of the address, and of two watches for one service.
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
	c.patience.log = o.Logger
	c.origins.client, c.restored = client, map[string]savedSet{}
	earlier, check := c.earlier()
	if check {
		c.origins.earlier = &earlier
	}
	for _, s := range earlier.sets {
		c.restored[s.query] = s
	}
	c.troubles.hasSaved = len(c.restored) > 0 && earlier.origin.at(client.Address())
	if err := c.Apply(o.Watches); err != nil {
		return nil, err
	}
	return c, nil
}

// earlier opens the store, if there is a StateDir, and returns the sets of an earlier process. check says that they
// may be of another cluster. Sets that a process has passed on are not, unless the address has changed: that process
// was still connected.
func (c *Consul) earlier() (all saved, check bool) {
	if c.options.StateDir != "" {
		c.store = newStore(c.options.StateDir, c.options.Logger)
	}
	if len(c.options.Saved) > 0 {
		all, err := decodeSaved(c.options.Saved)
		if err == nil {
			return all, !c.atSameAddress(all, false)
		}
		c.options.Logger.Warn("endpoints of the earlier process cannot be used", "reason", err)
	}
	if c.store == nil {
		return saved{}, false
	}
	all = c.store.load()
	c.atSameAddress(all, true)
	return all, true
}

// atSameAddress reports whether sets are from the agent that is asked now. If not, it warns. If they are in a file, it
// moves that aside.
func (c *Consul) atSameAddress(all saved, inFile bool) bool {
	if all.origin.at(c.client.Address()) {
		return true
	}
	c.options.Logger.Warn("saved endpoints are from consul at another address, "+
		"they are not served unless consul says that it is the same cluster",
		"saved_from", all.origin.address, "consul_is_at", c.client.Address(), "folder", c.options.StateDir)
	if inFile {
		c.store.setAside()
	}
	return false
}

// hides reports whether Consul may have hidden instances from an answer because there is no token.
func (c *Consul) hides(a *answer) bool {
	return a.denies && len(a.entries) == 0 && !c.client.HasToken()
}

// warnOfNoToken warns once that instances may be hidden, as those of a service are for which there is no instance.
// Consul answers everything to a client without a token, and leaves out in silence what that may not see.
func (c *Consul) warnOfNoToken(service string) {
	if !c.noToken.Swap(true) {
		c.options.Logger.Warn("consul names no instance, and lictor has no token: "+
			"consul's default policy is deny, so the instances may be hidden",
			"service", service, "to_change_that", "give the consul block a token with service:read and node:read")
	}
}

// Save returns the sets as they are now, for ConsulOptions.Saved of another process.
func (c *Consul) Save() ([]byte, error) { return encodeSaved(c.collect()) }

// HoldState stops writing to StateDir if on, and resumes it if not. It is for the time in which another process
// writes there.
func (c *Consul) HoldState(on bool) {
	if c.store != nil {
		c.store.hold(on)
	}
}

// Run watches until ctx ends, and then returns nil. The sink does not hear of a service until Consul has first
// answered for it, nor of anything while Consul is away. A second call returns an error.
func (c *Consul) Run(ctx context.Context, sink Sink) error {
	if c.ran.Swap(true) {
		return errors.New("the source has run already")
	}
	c.warmUp(ctx)
	c.start(ctx, sink)
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

// start starts everything that runs until ctx ends.
func (c *Consul) start(ctx context.Context, sink Sink) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx, c.sink, c.epoch, c.restored = ctx, sink, newEpoch(nil), nil
	if !c.client.Multiplexes() && c.options.MaxWatches > 0 {
		c.slots = newSlots(c.options.MaxWatches, c.options.Logger)
		c.slots.want(len(c.watches))
	}
	if c.store != nil {
		c.running.Go(func() { c.store.run(ctx, c.collectFor) })
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

// startLocked starts w, the nth of several watches that are started together.
func (c *Consul) startLocked(w *watch, nth int) {
	ctx, cancel := context.WithCancel(c.ctx)
	w.cancel = cancel
	c.running.Go(func() { w.run(ctx, time.Duration(nth)*rampStep) })
}

// Saved returns the sets that an earlier process has saved for the queries of now. Run does not pass them on: to
// serve them until Consul answers, give them to the balancer before Run.
func (c *Consul) Saved() []lb.Endpoints {
	var sets []lb.Endpoints
	for _, f := range c.selectorsInOrder() {
		if endpoints, saved := f.saved(); saved {
			sets = append(sets, lb.Endpoints{Service: f.service, Endpoints: endpoints})
		}
	}
	return sets
}

// collectFor returns the sets that are to be saved in a file. It finds out which cluster they are of.
func (c *Consul) collectFor(ctx context.Context) saved {
	c.origins.find(ctx)
	return c.collect()
}

// collect returns the sets that are to be saved.
func (c *Consul) collect() saved {
	all, fresh := saved{origin: c.origins.origin()}, c.origins.strangers()
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{}
	for _, w := range c.watches {
		key := c.savedKey(w)
		if set, known := w.publisher.saved(key, fresh); known && !seen[key] { // watches may differ in their guards only
			seen[key] = true
			all.sets = append(all.sets, set)
		}
	}
	return all
}

// savedKey returns the name of w's query in the file. The address of the agent is not part of it: the file has that
// once.
func (c *Consul) savedKey(w *watch) string {
	return fmt.Sprintf("%q %q %s", c.options.Namespace, c.options.Partition, w.query.canonical())
}

// warmUp opens the first connection, which shows whether the agent speaks HTTP/2. Then the first queries share it
// instead of dialling each for itself. An error is ignored: the queries will find out.
func (c *Consul) warmUp(ctx context.Context) {
	if c.watching() < 2 && !c.client.Multiplexes() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = c.client.Ping(ctx)
}

// watching returns how many queries are watched.
func (c *Consul) watching() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.watches)
}

// A RefusedError is of a query that Consul will not answer however often it is asked: it has a filter that Consul
// cannot parse, or an argument that only Consul Enterprise knows. Consul.Check, Look and Excluded return it.
type RefusedError struct {
	Query  Query
	Reason string // in Consul's words, for the author of the query
}

func (e *RefusedError) Error() string { return "consul refuses the query: " + e.Reason }

// Check asks Consul for q once. It returns nil if Consul answers, whatever the answer is, and a *RefusedError if
// Consul will never answer q. Any other error means that Consul could not be asked or could not answer now. It says
// nothing about q.
func (c *Consul) Check(ctx context.Context, q Query) error {
	_, err := c.once(ctx, q)
	return err
}

// Look asks Consul for q once, and returns the instances, including those that are out. Its errors are those of
// Check. If the answer is empty, Look may also return ErrNoToken, that the token lacks a right, or that there is no
// such cluster peering. If the token may not see some of the instances, Look returns the others and a *HiddenError.
func (c *Consul) Look(ctx context.Context, q Query) ([]Instance, error) {
	a, err := c.once(ctx, q)
	if err != nil {
		return nil, err
	}
	q = q.normalize(c.options.Datacenter)
	if c.hides(&a) {
		return nil, ErrNoToken
	}
	if a.filtered {
		missing := c.client.MissingRight(ctx, q.Service, q.Datacenter)
		if len(a.entries) > 0 {
			return convert(a.entries, q.Statuses).all, &HiddenError{Missing: missing}
		}
		return nil, &consul.MissingRightError{Missing: missing}
	}
	if q.Peer != "" && len(a.entries) == 0 {
		if err := c.client.Peering(ctx, q.Peer); err != nil {
			return nil, err
		}
	}
	return convert(a.entries, q.Statuses).all, nil
}

// A HiddenError is the error of Consul.Look if Consul left out some instances, because the token may not see them.
type HiddenError struct {
	Missing string // which right the token seems to lack, as text
}

func (e *HiddenError) Error() string {
	return "consul leaves out instances that the token may not see: perhaps it lacks " + e.Missing
}

// ErrNoToken is the error of Consul.Look for an empty answer to a client without a token.
var ErrNoToken = errors.New("consul names no instance and denies by default: instances may be hidden because there " +
	"is no token with service:read and node:read")

// once asks Consul for q once, without a wait.
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
