package discovery

import (
	"slices"
	"time"
)

// WatchStatus is the state of one watch.
type WatchStatus struct {
	Services []string // that share the watch
	Query    Query

	LastSuccess time.Time // when an answer was last believed; zero: never
	LastChange  time.Time // when the set last changed; zero: none was published yet
	Saved       time.Time // when a set of an earlier process last changed; zero: Consul has answered, or there was none
	HeldUntil   time.Time // when the first held endpoint is let go, if Consul still says so then; zero: none is held
	Error       string    // of the last query; empty: it succeeded
	ErrorSince  time.Time // when queries began to fail; zero: Error is empty

	// Hidden is whether instances may be hidden because there is no token: see ErrNoToken.
	Hidden bool

	Index   uint64 // that the next query asks with; zero: it asks the servers, without an index
	Backend string // of the last answer: "streaming" is the agent's own view, "blocking-query" the servers

	Endpoints  int // in the set, including held ones
	Held       int // endpoints in the set that Consul does not name any more, or not as healthy: see Guard
	Bad        int // instances that are left out because they cannot be dialled, or because their IDs are too long
	Duplicates int // instances that are left out because another one has the same address

	// Counted since the start:
	Queries   uint64 // that were sent
	Updates   uint64 // sets that were published
	Errors    uint64 // queries that failed
	Throttled uint64 // queries that failed because there were too many connections or requests
	Holds     uint64 // times that an endpoint began to be held
	Doubted   uint64 // answers that were not believed until the servers confirmed or corrected them
}

// Snapshot returns the state of all watches, in the order of the configuration.
func (c *Consul) Snapshot() []WatchStatus {
	c.mu.Lock()
	watches := slices.Clone(c.watches)
	c.mu.Unlock()
	all := make([]WatchStatus, 0, len(watches))
	for _, w := range watches {
		all = append(all, w.reporter.snapshot())
	}
	return all
}

// EachFailing calls f for each service with a watch whose last query failed, once for each such watch. f must not
// call the Consul. EachFailing allocates nothing while no query fails, so that it can be called often for thousands
// of services.
func (c *Consul) EachFailing(f func(service, err string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watches {
		err := w.reporter.failure()
		if err == "" {
			continue
		}
		for _, service := range *w.reporter.sharers.Load() {
			f(service, err)
		}
	}
}
