package discovery

import (
	"slices"
	"time"
)

// WatchStatus is the state of one watch at one moment.
type WatchStatus struct {
	Services []string // that share the watch
	Query    Query

	LastSuccess time.Time // when the set was last known to be right; zero: never
	LastChange  time.Time // when the set last changed; zero: nothing was published yet
	Saved       time.Time // when the set last changed, if it is one that an earlier process has saved and Consul has not answered yet
	HeldUntil   time.Time // when the first of those that are held is let go, if Consul still says so then; zero: none is held
	Error       string    // of the last query; empty if it succeeded
	ErrorSince  time.Time // when the first of the queries failed that failed without a success since; zero: Error is empty

	Index   uint64 // in Consul's state that the next query asks with; zero: it asks the servers without
	Backend string // who answered last: "streaming" is the agent's own view, "blocking-query" the servers

	Endpoints  int // in the set, with those that are held
	Held       int // in the set although Consul does not name them any more, or not as healthy: see Guard
	Bad        int // instances left out of it because they cannot be dialled, or because their IDs are too long
	Duplicates int // instances left out of it because their address is in it already

	// Counted since the start.
	Queries   uint64 // sent
	Updates   uint64 // sets published
	Errors    uint64 // queries that failed
	Throttled uint64 // those of them that Consul refused because there were too many connections or requests
	Doubted   uint64 // answers that were not believed until the servers confirmed or corrected them
}

// Snapshot returns the state of all watches, in the order in which they were asked for. It may be called at any time.
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

// EachFailing calls f for each service that has a watch whose last query failed, and as often as it has such. It allocates nothing as long as
// none fails, for it is called once a second for what may be thousands. f must not call the Consul.
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
