package discovery

import (
	"maps"
	"slices"
	"time"
)

// WatchStatus is the state of one watch.
type WatchStatus struct {
	Services []string // services that share the watch
	Query    Query
	Chain    bool // the query is for the discovery chain of Query.Service, and the fields about endpoints are zero

	LastSuccess time.Time // when an answer was last believed; zero: never
	LastChange  time.Time // when the set last changed; zero: no set was published yet
	Saved       time.Time // last change of the set that an earlier process saved; zero: no saved set is in use
	HeldUntil   time.Time // when the first held endpoint is dropped if Consul has not changed; zero: none is held
	Error       string    // error of the last query; empty: the query succeeded
	ErrorSince  time.Time // when queries began to fail; zero: Error is empty

	// Zone is the Zone of near endpoints. If it is not known although the Query has a Prefer, NoZone says why.
	Zone, NoZone string

	// Hidden reports whether Consul may hide instances because Lictor has no token: see ErrNoToken.
	Hidden bool

	Index   uint64 // index of the next query; zero: the next query asks the servers, without an index
	Backend string // source of the last answer: "streaming" is the agent's own view, "blocking-query" the servers

	Endpoints  int // endpoints in the set, with held endpoints
	Held       int // endpoints in the set that Consul no longer names, or names as less healthy: see Guard
	Bad        int // instances left out because they cannot be dialled or because their IDs are too long
	Duplicates int // instances left out because another instance has the same address

	// The following fields count since the start of the process.
	Queries   uint64 // queries sent
	Updates   uint64 // sets published
	Errors    uint64 // queries that failed
	Throttled uint64 // queries that failed because of too many connections or requests
	Holds     uint64 // times that an endpoint began to be held
	Doubted   uint64 // answers that were not believed before the servers confirmed or corrected them
}

// Snapshot returns the state of all watches, in the order of the configuration, and then of all discovery chains, in
// the order of their names.
func (c *Consul) Snapshot() []WatchStatus {
	c.mu.Lock()
	watches := slices.Clone(c.watches)
	followers := maps.Clone(c.followers)
	c.mu.Unlock()
	all := make([]WatchStatus, 0, len(watches)+len(followers))
	for _, w := range watches {
		all = append(all, w.reporter.snapshot())
	}
	for _, key := range slices.Sorted(maps.Keys(followers)) {
		all = append(all, followers[key].reporter.snapshot())
	}
	return all
}
