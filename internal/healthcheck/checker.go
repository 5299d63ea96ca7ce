// Package healthcheck checks over HTTP or HTTPS whether endpoints may get clients.
//
//	c := healthcheck.New(healthcheck.Options{Resolver: resolver, Changed: rejudge})
//	c.Apply(map[string]healthcheck.Check{"postgres": {Path: "/primary", Port: 8008, Interval: time.Second}})
//	verdicts := c.Judge(updates)    // of sets of endpoints, before clients are sent to them
//	...
//	c.Close()
//
// An endpoint is fit after an answer with a 2xx status, and unfit after any other answer. An endpoint that stops
// answering stays fit for Check.MaxSilence, because the HTTP server may be restarting while the endpoint itself works.
// An endpoint that has never answered is unfit.
//
// A new endpoint gets no clients before its first good answer. A service's first endpoints are an exception: they get
// clients until a check fails, so that a start leaves no client without an endpoint. After an upgrade, the results of
// the former process apply until the first check; see Checker.SetResults.
//
// Standby endpoints, which are in no set, are checked too; see Checker.Standby.
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
	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
)

// Reason is the reason of all verdicts, as the admin API names it.
const Reason = "check"

// notChecked is the text of a verdict before the first check of an endpoint.
const notChecked = "not checked yet"

// maxProbes limits the number of checks that run at once, for all services together.
const maxProbes = 64

// A Check configures how the endpoints of a service are checked.
type Check struct {
	Path       string        // path to request; begins with a slash
	Port       uint16        // port to request; zero means the endpoint's own port
	Interval   time.Duration // time between two checks of an endpoint, plus or minus a tenth
	Timeout    time.Duration // limit for each answer
	MaxSilence time.Duration // how long a fit endpoint may stay without an answer; negative means not at all

	// Header is the version of the PROXY header that comes before the request. With a Port no header is sent, because
	// another program answers there.
	Header proxyproto.Version

	HTTPS bool                 // use TLS
	TLS   certificates.Options // used only with HTTPS

	// NameFrom says where the registrations of instances give the names in their certificates, such as
	// `its meta "tls_server_name"`. With HTTPS, an endpoint then must have a ServerName, and the check verifies it. An
	// empty NameFrom means that the check ignores ServerName.
	NameFrom string
}

// Options configure a Checker. The zero value of each field is valid.
type Options struct {
	Resolver *lb.Resolver // looks up the host names of endpoints; nil means a Resolver of the Checker's own
	Logger   hclog.Logger // nil means no log

	// Changed is called when a service's set must be judged again although the set has not changed. The Checker holds
	// no lock during the call. Changed may be nil.
	Changed func(service string)
}

// A Checker checks the endpoints of services. The Checker is safe for concurrent use.
type Checker struct {
	resolver *lb.Resolver
	own      *lb.Resolver // the Resolver that New created; nil if Options had one
	log      hclog.Logger
	changed  func(service string)
	slots    chan struct{} // has an element for each running check
	files    tlsFiles
	wg       sync.WaitGroup

	mu       sync.Mutex
	services map[string]*service      // services with a Check
	standby  map[string][]lb.Endpoint // standby endpoints of all services, from Standby
	dropped  map[string]bool          // services that have lost their Check since the last call of Judge
	before   map[place]Result         // results from SetResults, for endpoints that are not checked yet
	closed   bool
}

// A service is a service with a Check. Checker.mu guards its fields.
type service struct {
	name    string
	check   Check
	known   bool               // Judge has received a set
	targets map[string]*target // endpoints of the set and standby endpoints, by ID
	told    map[string]cycles.Verdict
}

// A target is an endpoint that is checked. The first four fields of a target do not change; Checker.mu guards the
// others.
type target struct {
	service  *service
	endpoint lb.Endpoint
	cancel   context.CancelFunc
	hurry    chan struct{}   // has an element if the next check is due at once
	member   bool            // the endpoint is in the set
	standby  bool            // the endpoint is a standby endpoint
	verdict  *cycles.Verdict // why the endpoint gets no clients; nil if it gets clients
	silent   bool            // the verdict is that the endpoint does not answer
	passed   time.Time       // time of the last good answer; zero if there was none
}

// New returns a Checker that checks nothing until Apply.
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

// Apply replaces all checks; the map's key is the service. Unchanged checks continue.
func (c *Checker) Apply(checks map[string]Check) {
	for _, name := range c.replace(checks) {
		c.changed(name)
	}
}

// replace puts checks in force, and returns the services with sets that must be judged again.
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

// succeed returns a service with the new check, in place of old. The old verdicts apply until the new check has
// results. The caller must hold mu.
func (c *Checker) succeed(old *service, check Check) *service {
	s := &service{name: old.name, check: check, known: old.known, told: old.told, targets: map[string]*target{}}
	old.stop()
	for id, before := range old.targets {
		s.targets[id] = c.restart(s, before, before.endpoint)
	}
	return s
}

// restart starts the checks of e in place of those of before, whose result applies until there is another one. The
// caller must hold mu.
func (c *Checker) restart(s *service, before *target, e lb.Endpoint) *target {
	before.cancel()
	t := c.begin(s, e)
	t.member, t.standby = before.member, before.standby
	t.verdict, t.silent, t.passed = before.verdict, before.silent, before.passed
	return t
}

// Close stops all checks and waits for them. Verdicts stay as they are.
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

// stop stops the checks of all endpoints.
func (s *service) stop() {
	for _, t := range s.targets {
		t.cancel()
	}
}

// Judge receives the sets of services. Judge returns the verdicts, by service and endpoint ID, of each service with
// changed verdicts. Judge does not keep or change updates, and does not block.
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

// verdicts returns the verdicts on the endpoints of the set that get no clients, by ID.
func (s *service) verdicts() map[string]cycles.Verdict {
	all := map[string]cycles.Verdict{}
	for id, t := range s.targets {
		if t.member && t.verdict != nil {
			all[id] = *t.verdict
		}
	}
	return all
}

// follow checks the endpoints of a new set instead of those of the last one. The caller must hold mu.
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

// followStandby checks the present standby endpoints of s instead of the former ones. The caller must hold mu.
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

// target returns the target for e, and starts its checks if e is new. The caller must hold mu.
func (c *Checker) target(s *service, e lb.Endpoint) *target {
	t := s.targets[e.ID]
	switch {
	case t.isAt(e) && t.endpoint.ServerName == e.ServerName:
		return t
	case t.isAt(e):
		t = c.restart(s, t, e)
	default:
		if t != nil {
			t.cancel()
		}
		t = c.begin(s, e)
	}
	s.targets[e.ID] = t
	return t
}

// isAt reports whether t is not nil and is where e is.
func (t *target) isAt(e lb.Endpoint) bool {
	return t != nil && t.endpoint.Place() == e.Place()
}

// prune stops the checks of endpoints that are neither in the set nor standby.
func (s *service) prune() {
	for id, t := range s.targets {
		if !t.member && !t.standby {
			t.cancel()
			delete(s.targets, id)
		}
	}
}

// begin starts the checks of an endpoint. The caller must hold mu.
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

// Standby replaces the standby endpoints of a service, which the service does not use now but may use again. Standby
// endpoints are checked if the service has a Check. Standby does not block.
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

// Fit returns the endpoints that do not fail the service's Check, or all if the service has none. An endpoint without a
// result does not fail, unless it is standby, because a standby endpoint was left for a reason. Fit does not change
// endpoints, and does not block.
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

// fails reports whether the results so far forbid the endpoint to be used in its tier again.
func (t *target) fails() bool {
	return t.verdict != nil && (t.verdict.Critical || !t.member)
}

// Hurry makes the next check of an endpoint due at once, because it failed in another way. Hurry does not block.
func (c *Checker) Hurry(service, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.services[service]; s != nil && s.targets[id] != nil {
		select {
		case s.targets[id].hurry <- struct{}{}:
		default: // the check is due already
		}
	}
}

// Probe checks an endpoint of a service once and changes no verdict. The endpoint need not be in the set. The error is
// nil if the endpoint is fit. The result answered is false if the endpoint did not answer, or if the service has no
// Check.
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

// run checks an endpoint at once, and then at intervals until ctx ends.
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

// note stores the result of a check. If the verdict changes, note logs it and has the set judged again.
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
		log.Info("the check result of a standby endpoint has changed", "passed", verdict == nil)
	case verdict == nil:
		log.Info("endpoint passes its check, it gets clients")
	default:
		log.Warn("endpoint fails its check, it gets no clients", "error", verdict.Text)
	}
	c.changed(t.service.name)
}

// take stores the result of a check: nil, or the failure. take reports whether the verdict has changed.
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
	case t.verdict != nil && t.verdict.Critical && t.silent == silent: // the same failure, perhaps with another text
		return false
	}
	t.verdict, t.silent = &cycles.Verdict{Reason: Reason, Text: err.Error(), Critical: true}, silent
	return true
}
