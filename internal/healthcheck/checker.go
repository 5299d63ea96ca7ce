// Package healthcheck asks endpoints over HTTP or HTTPS whether they are fit for clients.
//
//	c := healthcheck.New(healthcheck.Options{Resolver: resolver, Changed: rejudge})
//	c.Apply(map[string]healthcheck.Check{"postgres": {Path: "/primary", Port: 8008, Interval: time.Second}})
//	verdicts := c.Judge(updates)    // of sets of endpoints, before anybody is sent to them
//	...
//	c.Close()
//
// An endpoint that answers with a status of 2xx is fit. One that answers otherwise is not, from that answer on. One
// that does not answer, though it did, stays fit for Check.MaxSilence: what answers may be restarting while the
// endpoint itself goes on. One that has never answered is not fit.
//
// A new endpoint gets no clients before its first good answer. The first endpoints of a service are an exception: they
// get clients until their first check fails, so that a start does not leave clients without an endpoint. After an
// upgrade, what the former process has found holds until the first check: see Checker.SetResults.
//
// Endpoints that stand by are checked too, though they are in no set: see Checker.Standby.
package healthcheck

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// Reason is the reason of all verdicts, in the word of the admin API.
const Reason = "check"

// notChecked is the text of a verdict before the first check of an endpoint has ended.
const notChecked = "not checked yet"

// maxProbes is how many checks run at once, of all services together.
const maxProbes = 64

// A Check says how the endpoints of a service are checked.
type Check struct {
	Path       string        // to ask for; it begins with a slash
	Port       uint16        // where to ask; zero: the endpoint's own port
	Interval   time.Duration // between two checks of an endpoint, give or take a tenth
	Timeout    time.Duration // how long each answer may take
	MaxSilence time.Duration // how long an endpoint that was fit may give no answer; negative: not at all

	HTTPS bool                 // over TLS
	TLS   certificates.Options // counts with HTTPS only
}

// Options are what a Checker needs. The zero value of each is fine.
type Options struct {
	Resolver *lb.Resolver // looks up the host names of endpoints; nil: one of the Checker's own
	Logger   hclog.Logger // nil: silent

	// Changed is called when a set should be judged again for another reason than that it has changed. The Checker
	// holds no lock meanwhile. Nil: it is not called.
	Changed func(service string)
}

// A Checker checks the endpoints of services. Safe for concurrent use.
type Checker struct {
	resolver *lb.Resolver
	own      *lb.Resolver // the one that New has created; nil: none
	log      hclog.Logger
	changed  func(service string)
	slots    chan struct{} // one for each check that runs
	files    tlsFiles
	wg       sync.WaitGroup

	mu       sync.Mutex
	services map[string]*service      // those that have a Check
	standby  map[string][]lb.Endpoint // what Standby was told, of services with and without a Check
	dropped  map[string]bool          // services that had a Check when Judge was called last
	before   map[place]Result         // what SetResults was told, of endpoints that are not checked yet
	closed   bool
}

// A service is one that has a Check. Checker.mu guards it.
type service struct {
	name    string
	check   Check
	known   bool               // Judge has been given a set
	targets map[string]*target // the endpoints of the set, and those that stand by, by ID
	told    map[string]cycles.Verdict
}

// A target is an endpoint that is checked. Checker.mu guards all but the first four, which do not change.
type target struct {
	service  *service
	endpoint lb.Endpoint
	cancel   context.CancelFunc
	hurry    chan struct{}   // has an element if the next check is due at once
	member   bool            // it is in the set
	standby  bool            // it stands by
	verdict  *cycles.Verdict // why it gets no clients; nil: it gets some
	silent   bool            // the verdict is that it does not answer
	passed   time.Time       // when its last good answer came; zero: there was none
}

// New returns a Checker that checks nothing yet.
func New(o Options) *Checker {
	c := &Checker{resolver: o.Resolver, log: o.Logger, changed: o.Changed, slots: make(chan struct{}, maxProbes),
		services: map[string]*service{}, standby: map[string][]lb.Endpoint{}, dropped: map[string]bool{},
		before: map[place]Result{}}
	if c.resolver == nil {
		c.own = lb.NewResolver(maxProbes)
		c.resolver = c.own
	}
	if c.log == nil {
		c.log = hclog.NewNullLogger()
	}
	if c.changed == nil {
		c.changed = func(string) {}
	}
	return c
}

// Apply makes checks, by service, the ones that are done. Those that are equal to what they were go on.
func (c *Checker) Apply(checks map[string]Check) {
	for _, name := range c.replace(checks) {
		c.changed(name)
	}
}

// replace puts checks in force, and returns the services whose sets are to be judged again.
func (c *Checker) replace(checks map[string]Check) (again []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, s := range c.services {
		if _, ok := checks[name]; !ok {
			s.stop()
			delete(c.services, name)
			c.dropped[name] = true
			again = append(again, name)
		}
	}
	for name, check := range checks {
		switch old := c.services[name]; {
		case old == nil:
			s := &service{name: name, check: check, targets: map[string]*target{}}
			c.services[name] = s
			c.followStandby(s)
			delete(c.dropped, name)
			again = append(again, name)
		case old.check != check:
			c.services[name] = c.succeed(old, check)
		}
	}
	return again
}

// succeed returns a service in place of old, with another check. What is known of its endpoints holds until the new
// check says something else. The caller has mu.
func (c *Checker) succeed(old *service, check Check) *service {
	s := &service{name: old.name, check: check, known: old.known, told: old.told, targets: map[string]*target{}}
	old.stop()
	for id, before := range old.targets {
		t := c.begin(s, before.endpoint)
		t.member, t.standby = before.member, before.standby
		t.verdict, t.silent, t.passed = before.verdict, before.silent, before.passed
		s.targets[id] = t
	}
	return s
}

// Close ends all checks, and returns when nothing is left of them. Verdicts stay as they are.
func (c *Checker) Close() {
	c.mu.Lock()
	c.closed = true
	for _, s := range c.services {
		s.stop()
	}
	c.mu.Unlock()
	c.wg.Wait()
	if c.own != nil {
		c.own.Close()
	}
}

// stop ends the checks of all endpoints.
func (s *service) stop() {
	for _, t := range s.targets {
		t.cancel()
	}
}

// Judge takes the sets of services. It returns the verdicts, by service and endpoint ID, of each service whose verdicts
// are others than they were. It does not keep or change updates, and does not block.
func (c *Checker) Judge(updates []lb.Endpoints) map[string]map[string]cycles.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := map[string]map[string]cycles.Verdict{}
	for name := range c.dropped {
		changed[name] = nil
	}
	clear(c.dropped)
	for _, u := range updates {
		s := c.services[u.Service]
		if s == nil {
			continue
		}
		c.follow(s, u)
		if now := s.verdicts(); !maps.Equal(now, s.told) {
			s.told, changed[s.name] = now, now
		}
	}
	return changed
}

// verdicts returns those of all endpoints of the set that get no clients, by ID.
func (s *service) verdicts() map[string]cycles.Verdict {
	all := map[string]cycles.Verdict{}
	for id, t := range s.targets {
		if t.member && t.verdict != nil {
			all[id] = *t.verdict
		}
	}
	return all
}

// follow has the endpoints of a set checked, in place of those of the last set. The caller has mu.
func (c *Checker) follow(s *service, u lb.Endpoints) {
	for _, t := range s.targets {
		t.member = false
	}
	for _, e := range u.Endpoints {
		c.target(s, e).member = true
	}
	s.prune()
	s.known = !u.Removed
}

// followStandby has the endpoints checked that stand by for s, in place of those that did. The caller has mu.
func (c *Checker) followStandby(s *service) {
	for _, t := range s.targets {
		t.standby = false
	}
	for _, e := range c.standby[s.name] {
		t := c.target(s, e)
		t.standby = true
		if !t.member && t.verdict == nil && t.passed.IsZero() {
			t.verdict = &cycles.Verdict{Reason: Reason, Text: notChecked}
		}
	}
	s.prune()
}

// target returns the target for e, which it begins to check if it is not checked already. The caller has mu.
func (c *Checker) target(s *service, e lb.Endpoint) *target {
	t := s.targets[e.ID]
	if t.isAt(e) {
		return t
	}
	if t != nil {
		t.cancel()
	}
	t = c.begin(s, e)
	s.targets[e.ID] = t
	return t
}

// isAt reports whether t is a target, and at the place of e.
func (t *target) isAt(e lb.Endpoint) bool {
	return t != nil && t.endpoint.Host == e.Host && t.endpoint.Addr == e.Addr
}

// prune ends the checks of endpoints that are neither in the set nor stand by.
func (s *service) prune() {
	for id, t := range s.targets {
		if !t.member && !t.standby {
			t.cancel()
			delete(s.targets, id)
		}
	}
}

// begin begins to check an endpoint. The caller has mu.
func (c *Checker) begin(s *service, e lb.Endpoint) *target {
	ctx, cancel := context.WithCancel(context.Background())
	t := &target{service: s, endpoint: e, cancel: cancel, hurry: make(chan struct{}, 1)}
	if s.known {
		t.verdict = &cycles.Verdict{Reason: Reason, Text: notChecked}
	}
	c.inherit(t)
	if !c.closed {
		c.wg.Go(func() { c.run(ctx, t) })
	}
	return t
}

// Standby has endpoints checked that a service does not use now, but may use again, in place of those that it was told
// before. It does nothing to a service without a Check. It does not block.
func (c *Checker) Standby(service string, endpoints []lb.Endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.standby[service] = endpoints
	if len(endpoints) == 0 {
		delete(c.standby, service)
	}
	if s := c.services[service]; s != nil {
		c.followStandby(s)
	}
}

// Fit returns those of endpoints that do not fail the Check of a service: all, if it has none. An endpoint that was not
// checked yet does not fail, unless it stands by: then something was wrong with it. Fit does not change endpoints, and
// does not block.
func (c *Checker) Fit(service string, endpoints []lb.Endpoint) []lb.Endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.services[service]
	if s == nil {
		return endpoints
	}
	var fit []lb.Endpoint
	for _, e := range endpoints {
		t := s.targets[e.ID]
		if t.isAt(e) && t.fails() || !t.isAt(e) && c.before[placeOf(service, e)].Failure != "" {
			continue
		}
		fit = append(fit, e)
	}
	return fit
}

// fails reports whether what is known of an endpoint speaks against a return to its tier.
func (t *target) fails() bool {
	return t.verdict != nil && (t.verdict.Critical || !t.member)
}

// Hurry starts the next check of an endpoint at once, as something else says that it fails. It does not block.
func (c *Checker) Hurry(service, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.services[service]; s != nil && s.targets[id] != nil {
		select {
		case s.targets[id].hurry <- struct{}{}:
		default: // it is to hurry already
		}
	}
}

// Probe asks an endpoint of a service once, whether it is in the set or not, and changes no verdict. The error is nil
// if the endpoint is fit. answered is false if the endpoint did not answer, or if the service has no Check.
func (c *Checker) Probe(ctx context.Context, service string, e lb.Endpoint) (answered bool, err error) {
	c.mu.Lock()
	s := c.services[service]
	c.mu.Unlock()
	if s == nil {
		return false, nil
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-c.slots }()
	err = c.probe(ctx, e, s.check)
	return isAnswer(err), err
}

// run checks an endpoint until ctx ends, for the first time at once.
func (c *Checker) run(ctx context.Context, t *target) {
	check := t.service.check
	for {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := c.probe(ctx, t.endpoint, check)
		<-c.slots
		if ctx.Err() == nil {
			c.note(ctx, t, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.hurry:
		case <-time.After(time.Duration(float64(check.Interval) * (0.9 + 0.2*rand.Float64()))):
		}
	}
}

// note notes what a check has found, and has the set judged again if the endpoint is to get clients now, or none.
func (c *Checker) note(ctx context.Context, t *target, err error) {
	c.mu.Lock()
	changed := ctx.Err() == nil && t.take(err, time.Now())
	verdict, member := t.verdict, t.member
	c.mu.Unlock()
	if !changed {
		return
	}
	log := c.log.With("service", t.service.name, "endpoint", t.endpoint.Address())
	switch {
	case !member:
		log.Info("endpoint that stands by has another result of its check", "passed", verdict == nil)
	case verdict == nil:
		log.Info("endpoint passes its check, it gets clients")
	default:
		log.Warn("endpoint fails its check, it gets no clients", "error", verdict.Text)
	}
	c.changed(t.service.name)
}

// take takes what a check has found: nil, or why it is not passed. It reports whether there is another verdict now.
func (t *target) take(err error, now time.Time) bool {
	silent := !isAnswer(err)
	switch {
	case err == nil:
		changed := t.verdict != nil
		t.verdict, t.passed = nil, now
		return changed
	case silent && isOurs(err):
		return false
	case silent && t.verdict == nil && !t.passed.IsZero() && now.Sub(t.passed) < t.service.check.MaxSilence:
		return false
	case t.verdict != nil && t.verdict.Critical && t.silent == silent: // in other words, perhaps
		return false
	}
	t.verdict, t.silent = &cycles.Verdict{Reason: Reason, Text: err.Error(), Critical: true}, silent
	return true
}
