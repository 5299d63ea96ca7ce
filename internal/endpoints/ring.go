package endpoints

import (
	"cmp"
	"container/heap"
	"slices"
)

// MaxEvents is the number of events that are kept. Each service has a share: see ring.
const MaxEvents = 8192

const (
	maxListed = 64   // number of events with Services that are kept, because such an event may be large
	maxText   = 1024 // length of an event's text in bytes

	// spareEvents is how many discarded events may stay in a ring's memory.
	spareEvents = MaxEvents / 4
)

// A ring keeps the last events. A ring that is full discards the oldest event of the service that has most of them. One
// service therefore cannot push out the events of the others, and each service keeps its newest event, as long as there
// are not more than MaxEvents of them. Events of no service together have the share of one service, and so have events
// with Services. The zero ring is empty. A ring is not safe for concurrent use.
type ring struct {
	all    []ringEvent // by number; discarded events stay until there are too many of them
	gone   int         // discarded events in all
	shares map[shareKey]*share
	most   shareHeap // the share that discards the next event is the first one
}

// A ringEvent is an event in a ring. The event is discarded if its Kind is empty.
type ringEvent struct {
	Event
	next uint64 // number of the next event in the same share; zero if this event is the newest one
}

// A shareKey identifies a share: a service, the events without a service, or the events with Services.
type shareKey struct {
	service string
	listed  bool
}

// A share is the part of a ring that belongs to one service.
type share struct {
	shareKey
	oldest, newest uint64 // numbers of events
	n              int    // number of events, at least one
	at             int    // position in the heap
}

// add appends e, whose number is above those of all events, and discards an event if the ring is full.
func (r *ring) add(e Event) {
	key := shareKey{e.Service, len(e.Services) > 0}
	if r.shares == nil {
		r.shares = map[shareKey]*share{}
	}
	s := r.shares[key]
	if s == nil {
		s = &share{shareKey: key, oldest: e.Seq}
		r.shares[key] = s
		heap.Push(&r.most, s)
	} else {
		before := r.find(s.newest)
		before.next = e.Seq
		if slices.Equal(before.Services, e.Services) { // one list in memory for an outage that comes and goes
			e.Services = before.Services
		}
	}
	s.newest = e.Seq
	s.n++
	heap.Fix(&r.most, s.at)
	r.all = append(r.all, ringEvent{Event: e})
	switch {
	case s.listed && s.n > maxListed:
		r.discardOldest(s)
	case len(r.all)-r.gone > MaxEvents:
		r.discardOldest(r.most[0])
	}
	if r.gone > spareEvents {
		r.all = slices.DeleteFunc(r.all, func(e ringEvent) bool { return e.Kind == "" })
		r.gone = 0
	}
}

// discardOldest discards the oldest event of s.
func (r *ring) discardOldest(s *share) {
	e := r.find(s.oldest)
	s.oldest = e.next
	e.Event = Event{Seq: e.Seq}
	r.gone++
	if s.n--; s.n == 0 {
		heap.Remove(&r.most, s.at)
		delete(r.shares, s.shareKey)
		return
	}
	heap.Fix(&r.most, s.at)
}

// find returns the event with number seq, which must be in r.all.
func (r *ring) find(seq uint64) *ringEvent {
	i, _ := slices.BinarySearchFunc(r.all, seq, func(e ringEvent, seq uint64) int { return cmp.Compare(e.Seq, seq) })
	return &r.all[i]
}

// after returns the newest events with numbers above seq for which wanted returns true, at most limit of them, oldest
// first.
func (r *ring) after(seq uint64, limit int, wanted func(*Event) bool) []Event {
	events := []Event{}
	for i := len(r.all) - 1; i >= 0 && r.all[i].Seq > seq && len(events) < limit; i-- {
		if e := &r.all[i].Event; e.Kind != "" && wanted(e) {
			events = append(events, *e)
		}
	}
	slices.Reverse(events)
	return events
}

// A shareHeap is a heap for container/heap. The first share has most events; of several such shares, its oldest event
// is older.
type shareHeap []*share

func (h shareHeap) Len() int { return len(h) }

func (h shareHeap) Less(i, j int) bool {
	if h[i].n != h[j].n {
		return h[i].n > h[j].n
	}
	return h[i].oldest < h[j].oldest
}

func (h shareHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push implements heap.Interface.
func (h *shareHeap) Push(x any) {
	s := x.(*share)
	s.at = len(*h)
	*h = append(*h, s)
}

// Pop implements heap.Interface.
func (h *shareHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
