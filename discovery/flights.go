package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// flights lets watches share a blocking query. Watches that ask Consul for the same, and only take other parts of the
// answer, such as other ports of the same instances, then need one connection, and one view at the agent. A flights is
// safe for concurrent use, and its zero value is ready.
type flights struct {
	mu  sync.Mutex
	all map[flightKey]*flight
}

// A flightKey is equal for blocking queries with the same answers.
type flightKey struct {
	text  string // see Query.request
	index uint64
	site  uint64 // which site has sent the index
}

// A flight is a blocking query that is running, or about to run.
type flight struct {
	until time.Time     // when Consul answers, at about the latest
	done  chan struct{} // closed when a and err are set
	a     answer        // its entries must not be changed
	err   error
}

// request returns the same text for all normalized queries that ask Consul for the same and need the same parsing of
// the answer.
func (q *Query) request() string {
	return fmt.Sprintf("%s?%s %q %t %t %t", q.path(), q.values().Encode(), q.fields(), len(q.SocketPaths) > 0,
		q.sni == "", q.Prefer.needsAgent())
}

// join returns the flight for key. If there is none, join begins one that ends at until, and returns true: the caller
// must send the query, and then call land. join returns nil if there is a flight that ends too late for the caller, who
// needs an answer at due; a zero due means that any time will do.
func (f *flights) join(key flightKey, until, due time.Time) (_ *flight, begun bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one := f.all[key]; one != nil {
		if !due.IsZero() && one.until.After(due) {
			return nil, false
		}
		return one, false
	}
	if f.all == nil {
		f.all = map[flightKey]*flight{}
	}
	one := &flight{until: until, done: make(chan struct{})}
	f.all[key] = one
	return one, true
}

// land ends the flight with the outcome of its query. If the query was only cancelled because its watch does not need
// it any more, the others ask again.
func (f *flights) land(key flightKey, one *flight, a answer, err error) {
	f.mu.Lock()
	delete(f.all, key)
	f.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		err = errTurn
	}
	one.a, one.err = a, err
	close(one.done)
}

// share returns the answer to the blocking query q. If another watch is waiting for the same answer, share waits with
// it; otherwise it calls send.
func (p *poller) share(ctx context.Context, q question, b *belief, send func() (answer, error)) (answer, error) {
	key, due, now := flightKey{p.request, q.index, p.site}, b.letGo(), time.Now()
	longest := p.consul.options.Wait * 5 / 4 // with jitter of Lictor and of the servers
	one, begun := p.consul.flights.join(key, now.Add(until(longest, now, due)), due)
	switch {
	case begun:
		a, err := send()
		p.consul.flights.land(key, one, a, err)
		return a, err
	case one == nil:
		return send()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer p.heed(cancel, b)()
	select {
	case <-one.done:
		return one.a, one.err
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// heed lets nudge call cancel, if the belief has endpoints for which another question may become better. The returned
// function undoes that.
func (p *poller) heed(cancel context.CancelCauseFunc, b *belief) func() {
	if len(b.vanished)+len(b.held) > 0 {
		p.nudged.Store(&cancel)
		if p.outdated(b) { // the belief may be outdated since the question was chosen
			cancel(errTurn)
		}
	}
	return func() { p.nudged.Store(nil) }
}
