package endpoints

import (
	"fmt"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// MaxEvents is how many events are kept.
const MaxEvents = 1024

// An Event is something that happened.
type Event struct {
	Seq      uint64 // counts the events
	Time     time.Time
	Kind     Kind
	Service  string // empty: of none
	Endpoint string // the ID; empty: of none
	Text     string
}

// A Kind is what an event is of.
type Kind string

// The kinds of events.
const (
	KindJoined    Kind = "joined"    // an endpoint is in its service's set now
	KindLeft      Kind = "left"      // it is no longer
	KindChanged   Kind = "changed"   // its address or weight is another
	KindOut       Kind = "out"       // why an instance is not in the set, in Consul's words; or it leads back
	KindHeld      Kind = "held"      // it should be out, and is kept in use for now
	KindEjected   Kind = "ejected"   // it fails, and is left out until it is tried again and answers
	KindReturned  Kind = "returned"  // it has answered, or does not lead back any more
	KindDrained   Kind = "drained"   // an operator took it out
	KindUndrained Kind = "undrained" // and put it back
	KindStale     Kind = "stale"     // a service's source fails, its endpoints stay
	KindRecovered Kind = "recovered" // it answers again
	KindReload    Kind = "reload"
	KindUpgrade   Kind = "upgrade" // one that failed: after another there is no process to ask
	KindLogLevel  Kind = "log_level"
)

// Events are the last events, oldest first, and those to come. Safe for concurrent use.
type Events struct {
	mu   sync.Mutex
	ring [MaxEvents]Event // the event of number n is at n % MaxEvents
	last uint64           // number of the newest; zero: none yet
	more chan struct{}    // closed at the next event
}

// NewEvents returns Events without one.
func NewEvents() *Events { return &Events{more: make(chan struct{})} }

// Add notes e, with a number and, unless it has one, the time.
func (l *Events) Add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.Seq = l.last
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.ring[e.Seq%MaxEvents] = e
	close(l.more)
	l.more = make(chan struct{})
}

// Instance notes what a source says of an instance, for each service that has it.
func (l *Events) Instance(e discovery.Event) {
	kind := KindOut
	if e.Kind == discovery.EventHeld {
		kind = KindHeld
	}
	for _, service := range e.Services {
		l.Add(Event{Kind: kind, Service: service, Endpoint: e.Instance, Text: e.Instance + ": " + e.Text})
	}
}

// Health notes that an endpoint is ejected, or is no longer.
func (l *Events) Health(c lb.HealthChange) {
	if !c.Ejected {
		l.Add(Event{Kind: KindReturned, Service: c.Service, Endpoint: c.Endpoint, Text: c.Endpoint + " can be reached again"})
		return
	}
	text := fmt.Sprintf("%s is left out: %s; it is tried again in %v", c.Endpoint, c.Cause, c.TryIn.Round(100*time.Millisecond))
	l.Add(Event{Kind: KindEjected, Service: c.Service, Endpoint: c.Endpoint, Text: text})
}

// After returns the newest events with numbers above seq, limit of them at most, of one service unless that is empty; the number to go
// on after; and a channel that is closed at the next event.
func (l *Events) After(seq uint64, service string, limit int) (events []Event, next uint64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	events = []Event{}
	first := seq + 1
	if l.last >= MaxEvents {
		first = max(first, l.last-MaxEvents+1)
	}
	for n := l.last; n >= first && n > 0 && len(events) < limit; n-- {
		if e := l.ring[n%MaxEvents]; service == "" || e.Service == service {
			events = append(events, e)
		}
	}
	for i, j := 0, len(events)-1; i < j; i, j = i+1, j-1 {
		events[i], events[j] = events[j], events[i]
	}
	return events, l.last, l.more
}
