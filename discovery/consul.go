package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// Consul is a Source that follows the catalog of a Consul agent. The methods of Consul may be called concurrently.
type Consul struct {
	options  ConsulOptions // with defaults
	client   *consul.Client
	troubles *troubles
	holds    *chorus[heldReport]
	changes  *chorus[failoverReport]
	store    *store // nil: sets are not saved
	streams  fact   // whether the agent has its own view of the catalog
	lag      lag
	origins  origins
	patience patience
	here     agentNode
	flights  flights
	noToken  atomic.Bool // warnOfNoToken has warned

	ran       atomic.Bool
	mu        sync.Mutex           // guards the following fields; one Apply waits for another
	watches   []*watch             // one for each distinct query, in the order of the configuration
	selectors map[string]*selector // by service
	byService sync.Map             // a copy of selectors, for callers that must not wait; needs no lock
	declared  []Watch              // the last argument of Apply
	followers map[string]*follower // by key
	following map[string]*follower // by service; nil for services that follow no discovery chain
	ctx       context.Context      // the context of Run; nil before Run
	sink      Sink                 // the sink of Run; never changes after Run has started
	restored  map[string]savedSet  // sets of an earlier process by query; for watches made before Run
	ended     bool                 // no goroutine may be added to running
	running   sync.WaitGroup       // counts the goroutines of Run

	restoredChains map[string][]target // like restored, for discovery chains
	chainNews      chan struct{}       // has an element if a discovery chain has changed since applyChains looked

	// Run sets these fields before it starts any goroutine.
	epoch *epoch
	slots *slots // nil: there is no limit on running queries
}

// NewConsul returns a Source for o. NewConsul reads the files that o names, but does not use the network. NewConsul
// returns an error if a file or an address is not usable, or if two watches have the same service.
func NewConsul(o ConsulOptions) (*Consul, error) {
	o = o.withDefaults()
	if o.Client != nil {
		return newConsul(o, o.Client)
	}
	client, err := consul.New(o.client())
	if err != nil {
		return nil, err
	}
	return newConsul(o, client)
}

// newConsul is NewConsul with a given client. o must have its defaults.
func newConsul(o ConsulOptions, client *consul.Client) (*Consul, error) {
	c := &Consul{
		options: o, client: client, troubles: newTroubles(o.Logger, o.OnEvent), selectors: map[string]*selector{},
		holds:   newChorus(func(all []heldReport) { tellHeld(o.Logger, all) }),
		changes: newChorus(func(all []failoverReport) { tellFailover(o.Logger, all) }),
	}
	c.patience.log = o.Logger
	c.origins.client, c.restored, c.chainNews = client, map[string]savedSet{}, make(chan struct{}, 1)
	earlier, check := c.earlier()
	if check {
		c.origins.earlier = &earlier
	}
	for _, s := range earlier.sets {
		c.restored[s.query] = s
	}
	c.restoredChains = earlier.chains
	c.troubles.hasSaved = len(c.restored) > 0 && earlier.origin.at(client)
	if err := c.Apply(o.Watches); err != nil {
		return nil, err
	}
	return c, nil
}

// earlier returns the sets of an earlier process, and opens the store if there is a StateDir. check is true if the sets
// may belong to another cluster. Sets in ConsulOptions.Saved need no check if the address is the same, because the
// earlier process was still connected.
func (c *Consul) earlier() (all saved, check bool) {
	if c.options.StateDir != "" {
		c.store = newStore(c.options.StateDir, c.options.Logger)
	}
	if len(c.options.Saved) > 0 {
		all, err := decodeSaved(c.options.Saved)
		if err == nil {
			return all, !c.atSameAddress(all, false)
		}
		c.options.Logger.Warn("cannot use the endpoints of the previous process", "reason", err)
	}
	if c.store == nil {
		return saved{}, false
	}
	all = c.store.load()
	c.atSameAddress(all, true)
	return all, true
}

// atSameAddress reports whether the sets come from one of the client's addresses. If they do not, atSameAddress logs
// a warning. If the sets come from the file in StateDir, it also moves the file aside.
func (c *Consul) atSameAddress(all saved, inFile bool) bool {
	if all.origin.at(c.client) {
		return true
	}
	c.options.Logger.Warn("saved endpoints are from another consul address: "+
		"lictor uses them only after consul has confirmed that it is the same cluster",
		"saved_from", all.origin.address, "consul_is_at", c.client.Address(), "folder", c.options.StateDir)
	if inFile {
		c.store.setAside()
	}
	return false
}

// hides reports whether Consul may have hidden instances from an answer because Lictor has no token.
func (c *Consul) hides(a *answer) bool {
	return a.denies && len(a.entries) == 0 && !c.client.HasToken()
}

// warnOfNoToken logs one warning that Consul may hide instances; service is a service without visible instances. Consul
// answers every query of a client without a token, and silently leaves out what the client may not see.
func (c *Consul) warnOfNoToken(service string) {
	if !c.noToken.Swap(true) {
		c.options.Logger.Warn("consul returned no instances, and lictor has no token: "+
			"consul's default policy is deny, so consul may hide instances",
			"service", service, "to_change_that", "give the consul block a token with service:read and node:read")
	}
}

// Save returns the current sets, for ConsulOptions.Saved of another process.
func (c *Consul) Save() ([]byte, error) { return encodeSaved(c.collect()) }

// HoldState stops writing to StateDir if on is true, and resumes writing if on is false. HoldState(true) is for the
// time in which another process writes to StateDir.
func (c *Consul) HoldState(on bool) {
	if c.store != nil {
		c.store.hold(on)
	}
}

// Run watches until ctx ends, and then returns nil. Run sends the sink no set of a service before Consul has first
// answered for the service. While Consul is away, Run sends no updates. A second call of Run returns an error.
func (c *Consul) Run(ctx context.Context, sink Sink) error {
	if c.ran.Swap(true) {
		return errors.New("the source has run already")
	}
	c.epoch = newEpoch(nil)
	defer c.client.OnMove(func(consul.Move) { c.moved() })()
	c.running.Go(func() { c.client.Run(ctx) })
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
	c.troubles.close()
	c.holds.close()
	c.changes.close()
	c.client.CloseIdle()
	return nil
}

// start starts all goroutines that run until ctx ends.
func (c *Consul) start(ctx context.Context, sink Sink) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx, c.sink, c.restored, c.restoredChains = ctx, sink, nil, nil
	if !c.client.Multiplexes() && c.options.MaxWatches > 0 {
		c.slots = newSlots(c.options.MaxWatches, c.options.Logger)
		c.slots.want(c.queriesLocked())
	}
	if c.store != nil {
		c.running.Go(func() { c.store.run(ctx, c.collectFor) })
	}
	for _, f := range c.selectors {
		f.begin()
	}
	nth := 0
	for _, f := range c.followers {
		c.startFollowerLocked(f, nth)
		nth++
	}
	for i, w := range c.watches {
		c.startLocked(w, nth+i)
	}
	c.running.Go(func() { c.applyChains(ctx) })
	if c.options.ProbeInterval > 0 {
		c.running.Go(func() { c.probe(ctx) })
	}
}

// moved handles a move of the client to another address. What was learned about the former agent does not count any
// more. All sets stay, and the client ends all queries with consul.ErrMoved, so that the watches ask anew.
func (c *Consul) moved() {
	c.streams.forget()
	c.patience.forget()
	c.here.forget()
}

// pause waits for d, but not longer than a moment after the client has moved away from a site: a query that has failed
// there may succeed at the next one. pause returns false if ctx has ended.
func (c *Consul) pause(ctx context.Context, d time.Duration, site uint64) bool {
	moved := c.client.Moved()
	if c.client.Site() != site {
		d = min(d, c.spread())
	}
	if !consul.Sleep(ctx, d, moved) {
		return false
	}
	select {
	case <-moved:
		return consul.Sleep(ctx, min(d, c.spread()), nil)
	default:
		return true
	}
}

// spread returns a random time, so that the watches do not ask a new agent all at once.
func (c *Consul) spread() time.Duration {
	return rand.N(time.Duration(c.watching())*rampStep + time.Millisecond)
}

// Client returns the client of Consul.
func (c *Consul) Client() *consul.Client { return c.client }

// startLocked starts the watch w. nth is the position of w among the watches that are started together.
func (c *Consul) startLocked(w *watch, nth int) {
	ctx, cancel := context.WithCancel(c.ctx)
	w.cancel = cancel
	c.running.Go(func() { w.run(ctx, time.Duration(nth)*rampStep) })
}

// Saved returns the sets that an earlier process has saved for the current queries. Run does not pass these sets on. To
// serve them until Consul answers, pass them to the balancer before Run.
func (c *Consul) Saved() []lb.Endpoints {
	var sets []lb.Endpoints
	for _, f := range c.selectorsInOrder() {
		if endpoints, saved := f.saved(); saved {
			sets = append(sets, lb.Endpoints{Service: f.service, Endpoints: endpoints})
		}
	}
	return sets
}

// collectFor returns the sets to save in the file. collectFor first finds out to which cluster the sets belong.
func (c *Consul) collectFor(ctx context.Context) saved {
	c.origins.find(ctx)
	return c.collect()
}

// collect returns the sets to save.
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
	for _, f := range c.followers {
		if f.targets != nil && (f.answered || !fresh) {
			if all.chains == nil {
				all.chains = map[string][]target{}
			}
			all.chains[f.key] = f.targets
		}
	}
	return all
}

// savedKey returns the key of w's query in the file of saved sets. The key does not contain the agent's address,
// because the file stores the address once.
func (c *Consul) savedKey(w *watch) string {
	return fmt.Sprintf("%q %q %s", c.options.Namespace, c.options.Partition, w.query.canonical())
}

// warmUp opens the first connection, which shows whether the agent speaks HTTP/2. If it does, the first queries share
// that connection instead of dialling one each. warmUp ignores errors, because the queries will report them.
func (c *Consul) warmUp(ctx context.Context) {
	if c.watching() < 2 && !c.client.Multiplexes() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = c.client.Ping(ctx)
}

// watching returns the number of watched queries.
func (c *Consul) watching() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queriesLocked()
}

// A RefusedError is the error of a query that Consul will never answer. For example, Consul cannot parse the filter, or
// only Consul Enterprise knows an argument. Consul.Check, Look and Excluded return a RefusedError.
type RefusedError struct {
	Query  Query
	Reason string // in Consul's words, for the author of the query
}

func (e *RefusedError) Error() string { return "consul refuses the query: " + e.Reason }

// Check asks Consul for q once. Check returns nil if Consul answers q with any answer. Check returns a *RefusedError if
// Consul will never answer q. Any other error means that Consul could not answer now, and says nothing about q.
func (c *Consul) Check(ctx context.Context, q Query) error {
	_, err := c.once(ctx, q)
	return err
}

// Look asks Consul for q once, and returns all instances, with those that are not in the set. Look returns the errors
// of Check. If the answer is empty, Look may also return ErrNoToken, an error for a missing right of the token, or an
// error for a missing cluster peering. If the token may not see some instances, Look returns the others and a
// *HiddenError.
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
		missing := c.missingRight(ctx, &q)
		if len(a.entries) > 0 {
			return a.instances(&q).all, &HiddenError{Missing: missing}
		}
		return nil, &consul.MissingRightError{Missing: missing}
	}
	if q.Peer != "" && len(a.entries) == 0 {
		if err := c.client.Peering(ctx, q.Peer); err != nil {
			return nil, err
		}
	}
	return a.instances(&q).all, nil
}

// missingRight returns a description of the right that the token lacks to see all instances that q selects.
func (c *Consul) missingRight(ctx context.Context, q *Query) string {
	missing := c.client.MissingRight(ctx, q.serviceAsked(), q.Datacenter)
	if q.Mesh { // a sidecar is a service of its own
		missing += fmt.Sprintf(`, or service:read for the names of the sidecars, such as "%s-sidecar-proxy"`, q.Service)
	}
	return missing
}

// A HiddenError is the error of Consul.Look if Consul left out some instances because the token may not see them.
type HiddenError struct {
	Missing string // the right that the token seems to lack, as text
}

func (e *HiddenError) Error() string {
	return "consul leaves out instances that the token may not see: perhaps it lacks " + e.Missing
}

// ErrNoToken is the error of Consul.Look if Lictor has no token, the answer is empty, and Consul denies access by
// default.
var ErrNoToken = errors.New("consul returned no instances and denies by default: it may hide instances because there " +
	"is no token with service:read and node:read")

// once asks Consul for q once, and does not wait for a change.
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
