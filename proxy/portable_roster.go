package proxy

import "sync"

// A roster lists what the portable engine serves, by place.
type roster struct {
	mu     sync.Mutex
	all    []listed // by place; nil if a place is free
	unused []int
}

// A listed is a TCP client or UDP session that a roster lists.
type listed interface {
	// connection returns a description, and whether q selects it and it has not ended.
	connection(q *ConnectionQuery) (Connection, bool)
}

// add gives x a place and returns it.
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

// remove frees a place.
func (r *roster) remove(place int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[place] = nil
	r.unused = append(r.unused, place)
}

// page returns the contents of up to placesAtOnce places from place on, and whether there are more places.
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
		if c, ok := x.connection(q); ok { // without the roster's lock: x has its own lock
			*page = append(*page, c)
		}
	}
	return from.number + len(some), more
}
