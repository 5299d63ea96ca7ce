package discovery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// slots bound how many queries are under way at once where each takes a connection of its own: over plain HTTP or a Unix socket, where
// the agent allows a client 200, all programs of the host together. As long as there are no more watches than slots, each holds one
// for good. If there are more, they take turns, so short that none is asked less often than every maxStale, and some slots are kept for
// those who need one for a moment only: a new watch is not to wait for the end of somebody's turn.
//
// An agent that still refuses connections allows fewer than we thought. As many as were under way besides the refused one are then the
// limit, and now and then a few more are tried. Safe for concurrent use.
type slots struct {
	most int // there are never more
	log  hclog.Logger
	turn *epoch // ends when watches begin to take turns: whoever holds a slot for long is to let go of it

	mu      sync.Mutex      // guards the following
	limit   int             // how many there are now
	held    int             // how many are held
	turns   int             // of those, by watches that have a turn
	urgent  []chan struct{} // those who wait and will not hold a slot for long, in order; each is closed to hand over a slot
	queue   []chan struct{} // the others who wait
	watches int             // that want one, now or later
	known   bool            // know was called
	short   bool            // there are more watches than slots, which was logged
	refused time.Time       // when the agent last refused a connection
	next    time.Time       // when more slots are tried
	retry   time.Duration   // between two such trials
	failed  bool            // the last of them
}

const (
	// maxStale is how long a watch may be without a query when watches take turns. Turns are planned to take a fifth less, for queries
	// take their time too.
	maxStale = 5 * time.Second

	// minTurn is the shortest time that is granted. An agent needs some milliseconds to make a view of a service, and has an empty one
	// until then. With the default of slots it bounds how many watches maxStale holds for: 6,000.
	minTurn = 100 * time.Millisecond

	// learnWait is the wait of the query that is to show what kind of agent it is.
	learnWait = 500 * time.Millisecond

	minRetry = 10 * time.Second
	maxRetry = 10 * time.Minute
)

// errTurn ends queries that hold a slot for long when others begin to wait for one.
var errTurn = errors.New("others wait for the connection")

func newSlots(most int, log hclog.Logger) *slots {
	return &slots{most: most, limit: most, log: log, turn: newEpoch((*poller).lingers), retry: minRetry}
}

// want says how many watches there are.
func (s *slots) want(watches int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches = watches
	s.changedLocked()
	s.handOverLocked()
}

// acquire waits for a slot, in order, but before those who are not urgent. The error is ctx's.
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
	} else { // it was handed over at the same moment
		s.releaseLocked(urgent)
	}
	return context.Cause(ctx)
}

// release gives back a slot that was acquired so.
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

// spareLocked is how many slots are not for turns.
func (s *slots) spareLocked() int {
	if !s.short {
		return 0
	}
	return (s.limit + 14) / 16
}

// refuse says that the agent refused the connection of one who holds a slot.
func (s *slots) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case s.limit == s.most && now.After(s.next):
		s.retry = minRetry
	case !s.failed:
		s.retry = min(2*s.retry, maxRetry)
	}
	s.refused, s.next, s.failed = now, now.Add(s.retry), true
	s.limit = max(min(s.limit, s.held-1), 1)
	s.changedLocked()
}

// refusing tells whether the agent refused a connection lately: then connections that break are refusals too.
func (s *slots) refusing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.refused.IsZero() && time.Since(s.refused) < maxStale
}

// raiseLocked tries more slots if it is time to.
func (s *slots) raiseLocked(now time.Time) {
	if s.limit < s.most && now.After(s.next) {
		s.next, s.failed = now.Add(s.retry), false
		s.limit = min(2*s.limit, s.most)
		s.changedLocked()
		s.handOverLocked()
	}
}

// changedLocked is to be called when there are other figures than before.
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
	s.log.Warn("more queries to consul than connections to it: they take turns, and changes are seen up to "+maxStale.String()+" later",
		"queries", s.watches, "connections", s.limit, "to_change_that",
		"use the agent's https port, which carries any number on a few connections; or raise limits.http_max_conns_per_client in the agent's configuration and max_watches in lictor's")
	if s.known {
		s.turn.end(errTurn)
	}
}

// know says that it is known now whether the agent frees what a cancelled query took. Until then nobody has to let go of a slot.
func (s *slots) know() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = true
	if s.short {
		s.turn.end(errTurn)
	}
}

// worthKnowing tells whether there are so many watches that it matters whether the agent frees what a cancelled query took.
func (s *slots) worthKnowing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watches >= 10
}

// wait is how long a query may hold its slot; zero: as long as it likes.
func (s *slots) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches <= s.limit {
		return 0
	}
	return max(maxStale*4/5*time.Duration(s.limit-s.spareLocked())/time.Duration(s.watches), minTurn)
}
