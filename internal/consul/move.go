package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/hostport"
)

// This file decides when a client with several addresses moves to another one, and to which.
//
// A failed request only raises a doubt. The client then asks the site itself, so that a broken connection or a query
// that only one service has trouble with is no reason to move. The client moves only to a site that answers a query
// which the present site cannot answer. So an election, which all servers feel, moves nobody.

const (
	// tryTimeout limits the question to a site that the client might move to. ownTimeout limits the same question to
	// the present site: a busy agent without enough processor time needs seconds.
	tryTimeout = 2 * time.Second
	ownTimeout = 5 * time.Second

	// clusterTimeout limits the question for the cluster of such a site. Beside a server that hangs, Consul's first
	// answer for the trust domain took 18 s.
	clusterTimeout = time.Second

	// moveJitter is the longest random pause between a doubt and the search for another site, so that the clients of a
	// dead server do not all ask the next one at the same moment. stagger is the time between the first questions to
	// two sites.
	moveJitter = 250 * time.Millisecond
	stagger    = 250 * time.Millisecond

	// After a search without a result, the next one follows up to firstPause later, and each further one after half as
	// much again, up to mostPause. So an election of some seconds does not delay a move much longer than it takes.
	firstPause = 500 * time.Millisecond
	mostPause  = 10 * time.Second

	// alivePause is the pause after the present site has answered.
	alivePause = time.Second

	// A stay shorter than calm doubles the least length of the next one, from firstStay up to mostStay.
	calm      = 10 * time.Second
	firstStay = time.Second
	mostStay  = time.Minute

	// maxPerName is how many IP addresses of a host name count.
	maxPerName = 16

	// learnPause is the time between two questions for the name of the present site's cluster.
	learnPause = time.Second
)

// ErrMoved is the error of a request that the client's move to another address has ended. Repeat the query without an
// index, because the index comes from the former address.
var ErrMoved = errors.New("lictor has moved to another address of consul")

// A Move is a client's move to another address.
type Move struct {
	From, To string // addresses without secrets
	Why      string
}

// A Standing says at which address a client is.
type Standing struct {
	Address   string    // with the IP address of a host name, if it is known
	Since     time.Time // when the client began to use the address
	Moves     uint64    // since the client was made
	From      string    // the address before; empty if the client has never moved
	Why       string    // why the client moved; empty if it has never moved
	Addresses []string  // all addresses, in the order of Options
}

// A doubt is the suspicion that a site does not answer any more.
type doubt struct {
	at      *site
	err     error
	certain bool // it is known that the site does not answer
}

// Standing returns at which address the client is.
func (c *Client) Standing() Standing {
	s := c.at.Load()
	standing := Standing{Address: s.String(), Since: s.since, From: s.from, Why: s.why, Moves: s.number}
	for _, a := range c.agents {
		standing.Addresses = append(standing.Addresses, a.String())
	}
	return standing
}

// Site returns the number of the site at which the client is. It grows with each move.
func (c *Client) Site() uint64 { return c.at.Load().number }

// Moved returns a channel that is closed at the next move.
func (c *Client) Moved() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moved
}

// OnMove calls f after each move, until the caller calls the result. f must not block. Calls of f never overlap.
func (c *Client) OnMove(f func(Move)) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	listener := &f
	c.listeners = append(c.listeners, listener)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.listeners = slices.DeleteFunc(c.listeners, func(l *func(Move)) bool { return l == listener })
	}
}

// Leave makes the client move, if another address answers. Call Leave if the present one certainly does not answer.
func (c *Client) Leave(why error) { c.raise(doubt{at: c.at.Load(), err: why, certain: true}) }

// ForgetCluster makes the client ask again for the cluster that it is in. Call it if the servers may have been wiped.
func (c *Client) ForgetCluster() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cluster, c.learnt = Cluster{}, false
}

// raise passes a doubt on to Run. A doubt about a client that cannot move has no effect.
func (c *Client) raise(d doubt) {
	if !c.movable {
		return
	}
	select {
	case c.doubts <- d:
	default: // one doubt is enough
	}
}

// judge calls request, which sends a request to s and returns its error. judge ends the context of the request if the
// client moves meanwhile, and then returns ErrMoved. It raises a doubt if another error may mean that s does not answer
// any more.
func (c *Client) judge(ctx context.Context, s *site, request func(context.Context) error) error {
	if !c.movable {
		return request(ctx)
	}
	within, end := s.while(ctx)
	defer end()
	err := request(within)
	switch {
	case err == nil:
		return nil
	case context.Cause(within) == ErrMoved:
		return ErrMoved
	case KindOf(err) != Lost:
		return err
	}
	cause := err
	if ctx.Err() != nil {
		var timeout *TimeoutError
		cause = context.Cause(ctx)
		if !errors.As(cause, &timeout) && !errors.Is(cause, context.DeadlineExceeded) {
			return err // the caller has lost interest
		}
	}
	c.raise(doubt{at: s, err: cause})
	return err
}

// Run moves the client to another address whenever the present one does not answer, until ctx ends. Without Run, the
// client never moves by itself. Each user of a client may call Run; one call at a time is at work. Run returns at once
// if the client has only one IP address or one socket.
func (c *Client) Run(ctx context.Context) {
	if !c.movable {
		return
	}
	select {
	case c.runs <- struct{}{}:
		defer func() { <-c.runs }()
	case <-ctx.Done():
		return
	}
	if !c.begun.Swap(true) {
		c.Settle(ctx, "")
	}
	var learning sync.WaitGroup // on its own, because a hanging site must not hold up a move
	learning.Go(func() {
		for c.learn(ctx); Sleep(ctx, learnPause, nil); {
			c.learn(ctx)
		}
	})
	defer learning.Wait()
	fruitless := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-c.doubts:
			if d.at != c.at.Load() {
				continue
			}
			switch c.reconsider(ctx, d) {
			case hasMoved:
				fruitless = 0
			case answers:
				fruitless = 0
				Sleep(ctx, alivePause, nil)
			case isLost:
				fruitless = min(max(fruitless*3/2, firstPause), mostPause)
				Sleep(ctx, fruitless/2+rand.N(fruitless/2), nil)
				c.raise(doubt{at: d.at, err: d.err}) // a hanging site could let the next request wait for long
			}
		}
	}
}

// learn finds out in which cluster the present site is, unless that is known.
func (c *Client) learn(ctx context.Context) {
	c.mu.Lock()
	learnt := c.learnt
	c.mu.Unlock()
	s := c.at.Load()
	if learnt || s.heard.Load() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	found, err := c.clusterOf(ctx, s)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == c.at.Load() {
		c.cluster, c.learnt = found, true
	}
}

// An outcome is the result of a doubt.
type outcome int

// The outcomes of a doubt.
const (
	hasMoved outcome = iota // the client is at another site
	answers                 // the present site answers
	isLost                  // no site answers
)

// reconsider handles a doubt about the present site.
func (c *Client) reconsider(ctx context.Context, d doubt) outcome {
	c.mu.Lock()
	stayUntil := c.stayUntil
	c.mu.Unlock()
	// Without the turn, because an operator's reload must not wait for up to mostStay.
	if !Sleep(ctx, max(rand.N(moveJitter), time.Until(stayUntil)), nil) || !c.take(ctx) {
		return isLost
	}
	defer c.giveBack()
	if d.at != c.at.Load() {
		return hasMoved
	}
	why, alive := d.err, false
	if !d.certain {
		err := c.try(ctx, d.at, ownTimeout)
		if err == nil {
			return answers
		}
		why, alive = err, !IsNetwork(err)
	}
	s, err := c.search(ctx, d.at)
	if s == nil {
		c.log.Debug("no other address of consul answers", "at", d.at, "reason", why, "others", err)
		return isLost
	}
	if alive && c.try(ctx, d.at, tryTimeout) == nil { // an election is over
		s.closeIdle()
		return answers
	}
	if ctx.Err() != nil {
		s.closeIdle()
		return isLost
	}
	c.moveTo(s, OneLine(why.Error()))
	return hasMoved
}

// search asks all sites except one at about the same time, in random order. It returns the first that answers and is in
// the same cluster, or nil and the reasons.
func (c *Client) search(ctx context.Context, except *site) (*site, error) {
	var all []*site
	for _, a := range c.agents {
		all = append(all, c.sites(ctx, a)...)
	}
	all = slices.DeleteFunc(all, except.is)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	type result struct {
		at  *site
		err error
	}
	results := make(chan result, len(all))
	asking, enough := context.WithCancel(ctx)
	defer enough()
	for i, s := range all {
		go func() {
			if !Sleep(asking, time.Duration(i)*stagger, nil) {
				results <- result{s, asking.Err()}
				return
			}
			results <- result{s, c.examine(asking, s)}
		}()
	}
	var found *site
	var reasons []error
	for range all {
		switch r := <-results; {
		case r.err == nil && found == nil:
			found = r.at
			enough()
		default:
			reasons = append(reasons, fmt.Errorf("%s: %w", r.at, r.err))
			r.at.closeIdle()
		}
	}
	return found, errors.Join(reasons...)
}

// examine returns nil if the client may move to s: s answers, and is in the same cluster as far as that is known.
func (c *Client) examine(ctx context.Context, s *site) error {
	if err := c.try(ctx, s, tryTimeout); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	found, _ := c.clusterOf(ctx, s) // what is not known does not differ
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.cluster.differs(found) {
		return nil
	}
	err := &StrangerError{Here: c.cluster, There: found}
	if !c.told[s.agent.String()] {
		c.told[s.agent.String()] = true
		c.log.Warn("an address of consul belongs to another cluster, lictor does not use it", "address", s,
			"reason", err)
	}
	return err
}

// A StrangerError says that an address belongs to another cluster than the one that the client is in.
type StrangerError struct{ Here, There Cluster }

func (e *StrangerError) Error() string {
	if e.Here.Datacenter != e.There.Datacenter && e.Here.Datacenter != "" && e.There.Datacenter != "" {
		return fmt.Sprintf("it is in the datacenter %q, and lictor in %q", e.There.Datacenter, e.Here.Datacenter)
	}
	return fmt.Sprintf("it is in the cluster with the trust domain %q, and lictor in %q",
		e.There.TrustDomain, e.Here.TrustDomain)
}

// differs reports whether a and b are known to be different clusters or datacenters.
func (a Cluster) differs(b Cluster) bool {
	differ := func(x, y string) bool { return x != "" && y != "" && x != y }
	return differ(a.TrustDomain, b.TrustDomain) || differ(a.Datacenter, b.Datacenter)
}

// sites returns a site for the address a, or one for each IP address of its host name.
func (c *Client) sites(ctx context.Context, a hostport.Agent) (all []*site) {
	if !isNamed(a) {
		return []*site{c.newSite(a, nil)}
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	ips, err := c.lookup(ctx, a.URL.Hostname())
	if err != nil {
		return []*site{c.newSite(a, nil)} // an attempt to dial it says why
	}
	for _, ip := range ips[:min(len(ips), maxPerName)] {
		all = append(all, c.newSite(a, &ip))
	}
	return all
}

// try asks s a query that needs the servers' leader, so that a server without one does not count as an answer. The
// query needs no right: an answer without instances, or that access is denied, will do.
func (c *Client) try(ctx context.Context, s *site, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, &TimeoutError{limit})
	defer cancel()
	resp, err := c.doAt(ctx, s, http.MethodGet, "/v1/health/service/consul", nil, nil)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < http.StatusInternalServerError {
		return nil
	}
	if err := statusOf(resp); !isDenied(err) {
		return err
	}
	return nil
}

// isDenied reports whether Consul has denied access, which it can do with the status 500.
func isDenied(err error) bool { return KindOf(err) == Denied }

// moveTo makes s the present site. The caller must have the turn.
func (c *Client) moveTo(s *site, why string) {
	former := c.at.Load()
	s.number, s.since, s.from, s.why = former.number+1, time.Now(), former.String(), why
	if s.since.Sub(former.since) > calm {
		c.leastStay = 0
	}
	c.leastStay = min(max(2*c.leastStay, firstStay), mostStay)
	c.at.Store(s)
	move := Move{From: former.String(), To: s.String(), Why: why}
	c.log.Warn("lictor uses another address of consul", "from", move.From, "to", move.To, "reason", why)
	c.mu.Lock()
	c.stayUntil = s.since.Add(c.leastStay)
	clear(c.told)
	c.learnt = false // the site may know more than the former one
	close(c.moved)
	c.moved = make(chan struct{})
	listeners := slices.Clone(c.listeners)
	c.mu.Unlock()
	for _, f := range listeners {
		(*f)(move)
	}
	former.leave()
	former.closeIdle()
}

// take waits until no other goroutine is about to move the client. It returns false if ctx ends.
func (c *Client) take(ctx context.Context) bool {
	select {
	case c.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Client) giveBack() { <-c.turn }
