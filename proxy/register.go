package proxy

import (
	"sync"
	"time"
)

// A register has the UDP sockets of an engine, which may have to end sessions for others. All methods may be called
// concurrently. To add or to remove one takes the same time however many there are.
type register[T any] struct {
	mu     sync.RWMutex
	all    []*T
	places map[*T]int // in all
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

// perSearch is how many elements a search looks at: thousands would be too many for each new session of a flood. A
// search goes on where the last one stopped, and remembers the best that it has found. So it finds the best one of a
// round, or nearly; and the best one of all if there are no more than perSearch.
const perSearch = 16

// barren is how long a search does not look at all elements again when it has found none.
const barren = 10 * time.Millisecond

// A cursor is where a search of a register goes on.
type cursor struct {
	next int
	full time.Duration // from when on it may look at all elements
}

// scan calls f with the next few elements. It goes on through all of them until f returns true once, unless one has
// been found before, or c has done so in vain just now.
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
