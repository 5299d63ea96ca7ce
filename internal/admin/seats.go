package admin

import (
	"fmt"
	"net/http"
	"sync"
)

// seats bounds how many requests of one kind are held open at once, because they wait for something to happen or for
// each other. Such a request keeps its connection, so these requests must not be on all connections. Safe for
// concurrent use.
type seats struct {
	what string // the requests, as the error names them
	most int
	each int // of one peer on another host

	mu      sync.Mutex
	taken   int
	remote  map[peer]int // of these, by peers on other hosts
	refused int64
}

func newSeats(what string, most int) *seats {
	return &seats{what: what, most: most, each: max(1, most/2), remote: map[peer]int{}}
}

// take has the connection of r keep its slot, and returns a function that gives the seat back. The error says that
// there is no seat.
func (s *seats) take(r *http.Request) (leave func(), err error) {
	c := connOf(r)
	isRemote := c != nil && !c.local
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.taken >= s.most:
		s.refused++
		return nil, fmt.Errorf("%d %s are open already, which is the limit", s.taken, s.what)
	case isRemote && s.remote[c.peer] >= s.each:
		s.refused++
		return nil, fmt.Errorf("%s has %d %s open already, which is the limit for one address", c.peer, s.each, s.what)
	}
	s.taken++
	if isRemote {
		s.remote[c.peer]++
	}
	c.keep(true)
	return func() { s.leave(c, isRemote) }, nil
}

func (s *seats) leave(c *slotConn, isRemote bool) {
	c.keep(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if !isRemote {
		return
	}
	if s.remote[c.peer]--; s.remote[c.peer] == 0 {
		delete(s.remote, c.peer)
	}
}

// counts returns how many requests have been refused.
func (s *seats) counts() (refused int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}
