package discovery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// slots bound how many queries are under way at once where each takes a connection: over plain HTTP and Unix
// sockets. There the agent allows all programs of a host 200 together. Safe for concurrent use.
//
// While there are no more watches than slots, each watch holds one all the time. If there are more, they take turns.
// The turns are so short that each watch asks at least every maxStale. Some slots are kept for urgent queries, which
// end at once: a new watch does not wait for the end of a turn.
//
// If the agent refuses a connection, it allows fewer than there are slots. Then the limit is less than the queries that
// were under way, so that other programs of the host get connections too. More are tried now and then.
type slots struct {
	most int // bound of limit
	log  hclog.Logger
	turn *epoch // ends when watches begin to take turns, so that they free the slots that they hold for long

	mu      sync.Mutex      // guards the following
	limit   int             // slots that there are now
	held    int             // slots that are held
	turns   int             // slots that are held by queries that are not urgent
	urgent  []chan struct{} // urgent queries that wait, in order; to hand over a slot, the channel is closed
	queue   []chan struct{} // other queries that wait, in order
	watches int             // how many watches there are
	known   bool            // know was called
	short   bool            // there are more watches than slots, which was logged
	refused time.Time       // when the agent last refused a connection; zero: never
	next    time.Time       // when more slots are tried
	retry   time.Duration   // between two such trials
	tooMany bool            // the last trial failed
}

const (
	// maxStale is how long a watch may be without a query when watches take turns. Turns are planned to take a fifth
	// less, because queries take some time too.
	maxStale = 5 * time.Second

	// minTurn is the shortest turn. An agent needs some milliseconds to make a view of a service, and the view is empty
	// until then. With 150 slots, maxStale holds for up to 6,000 watches.
	minTurn = 100 * time.Millisecond

	// learnWait is the wait of the query that shows whether the agent has its own view of the catalog.
	learnWait = 500 * time.Millisecond

	minRetry = 10 * time.Second // bounds of slots.retry
	maxRetry = 10 * time.Minute
)

// errTurn ends queries before their time: others wait for the connection, or the query is to be replaced.
var errTurn = errors.New("others wait for the connection")

func newSlots(most int, log hclog.Logger) *slots {
	return &slots{most: most, limit: most, log: log, turn: newEpoch((*poller).lingers), retry: minRetry}
}

// want sets how many watches there are.
func (s *slots) want(watches int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches = watches
	s.changedLocked()
	s.handOverLocked()
}

// acquire waits for a slot. Queries get slots in the order in which they asked, but urgent ones before others. The
// error is the cause of ctx.
func (s *slots) acquire(ctx context.Context, urgent bool) error {
	queue := &s.queue
	if urgent {
		queue = &s.urgent
	}
	mine := make(chan struct{})
	s.mu.Lock()
	*queue = append(*queue, mine)
	s.raiseLocked(time.Now())
	s.handOverLocked()
	s.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(*queue, mine); i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
	} else { // a slot was handed over at the same moment
		s.releaseLocked(urgent)
	}
	return context.Cause(ctx)
}

// release gives a slot back. urgent is what acquire was called with.
func (s *slots) release(urgent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raiseLocked(time.Now())
	s.releaseLocked(urgent)
}

func (s *slots) releaseLocked(urgent bool) {
	s.held--
	if !urgent {
		s.turns--
	}
	s.handOverLocked()
}

// handOverLocked hands free slots over to queries that wait.
func (s *slots) handOverLocked() {
	for ; s.held < s.limit; s.held++ {
		queue := &s.urgent
		if len(*queue) == 0 {
			if queue = &s.queue; len(*queue) == 0 || s.turns >= s.limit-s.spareLocked() {
				return
			}
			s.turns++
		}
		close((*queue)[0])
		*queue = (*queue)[1:]
	}
}

// spareLocked returns how many slots are kept for urgent queries.
func (s *slots) spareLocked() int {
	if !s.short {
		return 0
	}
	return (s.limit + 14) / 16
}

// refuse lowers the limit, because the agent has refused the connection of a query with a slot.
func (s *slots) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case s.limit == s.most && now.After(s.next):
		s.retry = minRetry
	case !s.tooMany:
		s.retry = min(2*s.retry, maxRetry)
	}
	s.refused, s.next, s.tooMany = now, now.Add(s.retry), true
	allowed := s.held - 1
	s.limit = max(min(s.limit, allowed-reserve(allowed)), 1)
	s.changedLocked()
}

// reserve returns how many of the connections that the agent allows are left to other programs, and to requests that
// need no slot.
func reserve(allowed int) int { return max(allowed/4, 2) }

// refusing reports whether the agent has refused a connection lately.
func (s *slots) refusing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.refused.IsZero() && time.Since(s.refused) < maxStale
}

// raiseLocked tries more slots, if it is time to.
func (s *slots) raiseLocked(now time.Time) {
	if s.limit < s.most && now.After(s.next) {
		s.next, s.tooMany = now.Add(s.retry), false
		s.limit = min(2*s.limit, s.most)
		s.changedLocked()
		s.handOverLocked()
	}
}

// changedLocked logs whether watches take turns, and lets the turns begin. It is to be called when the limit or the
// number of watches has changed.
func (s *slots) changedLocked() {
	short := s.watches > s.limit
	if short == s.short {
		return
	}
	s.short = short
	if !short {
		s.log.Info("each query to consul has a connection of its own again", "queries", s.watches)
		return
	}
	s.log.Warn("more queries to consul than connections to it: "+
		"they take turns, and changes are seen up to "+maxStale.String()+" later",
		"queries", s.watches, "connections", s.limit, "to_change_that",
		"use the agent's https port, which carries any number on a few connections; or raise "+
			"limits.http_max_conns_per_client in the agent's configuration and max_watches in lictor's")
	if s.known {
		s.turn.end(errTurn)
	}
}

// know notes that it is known now whether the agent frees the connection of a cancelled query at once. Until then no
// query is ended for the sake of turns.
func (s *slots) know() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = true
	if s.short {
		s.turn.end(errTurn)
	}
}

// worthKnowing reports whether there are so many watches that it matters whether the agent frees the connection of a
// cancelled query at once.
func (s *slots) worthKnowing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watches >= 10
}

// turnLength returns how long a query may hold its slot; zero means any time.
func (s *slots) turnLength() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches <= s.limit {
		return 0
	}
	return max(maxStale*4/5*time.Duration(s.limit-s.spareLocked())/time.Duration(s.watches), minTurn)
}
