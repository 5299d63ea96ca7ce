package proxy

import "sync"

// A roster is what the portable engine serves, by place.
type roster struct {
	mu     sync.Mutex
	all    []listed // nil: the place is free
	unused []int
}

// A listed is something that can be in a roster.
type listed interface {
	// connection is what there is to say of it if q wants it and it is not over.
	connection(q *ConnectionQuery) (Connection, bool)
}

// add gives x a place.
func (r *roster) add(x listed) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.unused); n > 0 {
		i := r.unused[n-1]
		r.unused = r.unused[:n-1]
		r.all[i] = x
		return i
	}
	r.all = append(r.all, x)
	return len(r.all) - 1
}

// remove takes the place back.
func (r *roster) remove(place int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[place] = nil
	r.unused = append(r.unused, place)
}

// page returns what is in the next places, and whether there are more.
func (r *roster) page(place int) (some []listed, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := min(place+placesAtOnce, len(r.all))
	if place < end {
		some = append(some, r.all[place:end]...)
	}
	return some, end < len(r.all)
}

// list implements engine.
func (e *portable) list(from place, q *ConnectionQuery, page *[]Connection) (number int, more bool) {
	some, more := e.roster.page(from.number)
	for i, x := range some {
		if len(*page) == q.Limit {
			return from.number + i, true
		}
		if x == nil {
			continue
		}
		if c, ok := x.connection(q); ok { // outside the roster's lock: it has a lock of its own
			*page = append(*page, c)
		}
	}
	return from.number + len(some), more
}
