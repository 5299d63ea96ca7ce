package discovery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// slots limits how many queries run at once over plain HTTP and Unix sockets, where each query takes a connection. The
// agent allows all programs of a host 200 such connections together. slots is safe for concurrent use.
//
// If there are not more watches than slots, each watch holds a slot all the time. If there are more watches than slots,
// the watches take turns. Turns are short, so that each watch sends a query at least every maxStale. Some slots are
// kept for urgent queries, which are short: a new watch need not wait for the end of a turn.
//
// If the agent refuses a connection, it allows fewer connections than there are slots. The limit then drops below the
// number of running queries, so that other programs of the host get connections too. From time to time, slots tries a
// higher limit.
type slots struct {
	most int // largest value of limit
	log  hclog.Logger
	turn *epoch // ends when watches begin to take turns, so that they release slots that they have held for long

	mu      sync.Mutex      // guards the following fields
	limit   int             // current number of slots
	held    int             // slots in use
	turns   int             // slots in use by queries that are not urgent
	urgent  []chan struct{} // waiting urgent queries, in order; closing a channel hands over a slot
	queue   []chan struct{} // other waiting queries, in order
	watches int             // number of watches
	known   bool            // know was called
	short   bool            // there are more watches than slots, and the log says so
	refused time.Time       // when the agent last refused a connection; zero: never
	next    time.Time       // when to try a higher limit
	retry   time.Duration   // time between two tries of a higher limit
	tooMany bool            // the last try of a higher limit failed
	proven  time.Time       // when a try of a higher limit has not failed; zero: none is under way
}

const (
	// maxStale is how long a watch may be without a query when watches take turns. Planned turns are a fifth shorter,
	// because queries take some time too.
	maxStale = 5 * time.Second

	// minTurn is the shortest turn. An agent needs some milliseconds to build a view of a service, and the view is
	// empty until then. With 150 slots, each of up to 6,000 watches keeps to maxStale.
	minTurn = 100 * time.Millisecond

	// learnWait is the wait of the query that shows whether the agent has its own view of the catalog.
	learnWait = 500 * time.Millisecond

	minRetry = 10 * time.Second // limits of slots.retry
	maxRetry = 10 * time.Minute
)

// errTurn ends a query early: other queries wait for its connection, a better query replaces it, or its watch has
// retired.
var errTurn = errors.New("the query ended early, to free its connection or to make way for a better query")

func newSlots(most int, log hclog.Logger) *slots {
	return &slots{most: most, limit: most, log: log, turn: newEpoch((*poller).lingers), retry: minRetry}
}

// want sets the number of watches.
func (s *slots) want(watches int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches = watches
	s.changedLocked()
	s.handOverLocked()
}

// acquire waits for a slot. Queries get slots in the order of their calls, but urgent queries come before others. The
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
	} else { // the query got a slot at the same moment
		s.releaseLocked(urgent)
	}
	return context.Cause(ctx)
}

// release gives a slot back. urgent must have the same value as in the call of acquire.
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

// handOverLocked hands free slots over to waiting queries.
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

// refuse gives back the slot of a query whose connection the agent has refused, and lowers the limit. Call refuse in
// place of release, with the same value of urgent. The agent often refuses several queries at once. A refused query
// does not count as a connection that the agent allows, so the last of these calls sets the right limit.
func (s *slots) refuse(urgent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case s.limit == s.most && now.After(s.next):
		s.retry = minRetry
	case !s.tooMany:
		s.retry = min(2*s.retry, maxRetry)
	}
	s.refused, s.next, s.tooMany, s.proven = now, now.Add(s.retry), true, time.Time{}
	allowed := s.held - 1
	s.limit = max(min(s.limit, allowed-reserve(allowed)), 1)
	s.changedLocked()
	s.releaseLocked(urgent)
}

// reserve returns how many connections are left to other programs, and to requests that need no slot. allowed is the
// number of connections that the agent allows.
func reserve(allowed int) int { return max(allowed/4, 2) }

// refusing reports whether the agent has recently refused a connection.
func (s *slots) refusing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.refused.IsZero() && time.Since(s.refused) < maxStale
}

// raiseLocked raises the limit, if it is time to try more slots. A try lasts for maxStale, in which each watch sends a
// query. If it has not failed by then, that many connections are allowed. If watches take turns, they leave some of
// these connections to others.
func (s *slots) raiseLocked(now time.Time) {
	switch {
	case s.limit >= s.most:
		return
	case now.After(s.next):
		s.next, s.proven, s.tooMany = now.Add(s.retry), now.Add(maxStale), false
		s.limit = min(2*s.limit, s.most)
	case s.short && !s.proven.IsZero() && now.After(s.proven):
		s.proven = time.Time{}
		s.limit = max(s.limit-reserve(s.limit), s.limit/2)
	default:
		return
	}
	s.changedLocked()
	s.handOverLocked()
}

// changedLocked logs whether watches take turns, and starts turns if necessary. Call changedLocked when the limit or
// the number of watches has changed.
func (s *slots) changedLocked() {
	short := s.watches > s.limit
	if short == s.short {
		return
	}
	s.short = short
	if !short {
		s.log.Info("each query to consul has its own connection again", "queries", s.watches)
		return
	}
	s.log.Warn("more queries than connections to consul: "+
		"queries take turns, and lictor sees changes up to "+maxStale.String()+" later",
		"queries", s.watches, "connections", s.limit, "to_change_that",
		"use the agent's https port, which carries any number on a few connections; or raise "+
			"limits.http_max_conns_per_client in the agent's configuration and max_watches in lictor's")
	if s.known {
		s.turn.end(errTurn)
	}
}

// know records that Lictor has learned whether the agent frees the connection of a cancelled query at once. Before know
// is called, no query is ended because of turns.
func (s *slots) know() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = true
	if s.short {
		s.turn.end(errTurn)
	}
}

// worthKnowing reports whether there are so many watches that Lictor must learn how the agent treats cancelled queries.
// The agent either frees the connection at once or keeps it.
func (s *slots) worthKnowing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watches >= 10
}

// turnLength returns how long a query may hold its slot. A result of zero means without limit.
func (s *slots) turnLength() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches <= s.limit {
		return 0
	}
	return max(maxStale*4/5*time.Duration(s.limit-s.spareLocked())/time.Duration(s.watches), minTurn)
}
