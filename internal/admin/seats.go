package admin

import (
	"fmt"
	"net/http"
	"sync"
)

// seats limits the open requests of one kind, such as streams, which wait for events or for each other. An open request
// occupies its connection, so such requests must not occupy all connections. seats is safe for concurrent use.
type seats struct {
	what string // the kind of requests, for errors
	most int
	each int // maximum for one peer on another host

	mu      sync.Mutex
	taken   int
	remote  map[peer]int // part of taken, by peer on other hosts
	refused int64
}

func newSeats(what string, most int) *seats {
	return &seats{what: what, most: most, each: max(1, most/2), remote: map[peer]int{}}
}

// take reserves a seat for r and marks the connection of r as kept, so that it is not evicted. The returned function
// gives the seat back. take returns an error if no seat is free.
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

// counts returns the number of refused requests.
func (s *seats) counts() (refused int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}
