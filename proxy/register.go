package proxy

import (
	"sync"
	"time"
)

// A register holds the UDP sockets of an engine. A register is searched for sessions that must end for other clients.
// All methods may be called concurrently. add and remove take constant time.
type register[T any] struct {
	mu     sync.RWMutex
	all    []*T
	places map[*T]int // index of each element in all
}

func (r *register[T]) add(some ...*T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.places == nil {
		r.places = map[*T]int{}
	}
	for _, x := range some {
		r.places[x] = len(r.all)
		r.all = append(r.all, x)
	}
}

func (r *register[T]) remove(x *T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.places[x]
	if !ok {
		return
	}
	last := len(r.all) - 1
	r.places[r.all[last]] = i
	r.all[i], r.all[last] = r.all[last], nil
	r.all = r.all[:last]
	delete(r.places, x)
}

// perSearch is how many elements a search looks at. To look at thousands would be too expensive for each new session of
// a flood. A search continues where the last one stopped, and remembers the best element found so far. A search thus
// finds nearly the best element of each round, and the very best one if there are at most perSearch elements.
const perSearch = 16

// After a search of all elements has found none, further searches look at only perSearch elements for the time barren.
const barren = 10 * time.Millisecond

// A cursor is where a search of a register continues.
type cursor struct {
	next int
	full time.Duration // when the search may look at all elements again
}

// scan calls f with the next perSearch elements. If found is false, scan continues through all elements until f returns
// true. After a scan of all elements has found none, scan does not look at all elements again for the time barren.
func (r *register[T]) scan(c *cursor, now time.Duration, found bool, f func(*T) bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := min(perSearch, len(r.all))
	if !found && now >= c.full {
		n = len(r.all)
	}
	for i := 0; i < n && (i < perSearch || !found); i++ {
		if c.next++; c.next >= len(r.all) {
			c.next = 0
		}
		found = f(r.all[c.next]) || found
	}
	if !found && n == len(r.all) {
		c.full = now + barren
	}
}
