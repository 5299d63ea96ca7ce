package endpoints

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// MaxEvents is how many events are kept.
const MaxEvents = 1024

// An Event is something that happened. Add gives it its Seq and, if it has none, its Time.
type Event struct {
	Seq      uint64 // increases by one; see Events.Begin for the first
	Time     time.Time
	Kind     Kind
	Service  string // empty: the event is of no service
	Endpoint string // its ID; empty: the event is of no endpoint
	Text     string // for people
}

// A Kind says what has happened.
type Kind string

// The kinds of events.
const (
	KindJoined    Kind = "joined"    // an endpoint has come into the set of its service
	KindLeft      Kind = "left"      // an endpoint has left the set
	KindChanged   Kind = "changed"   // an endpoint has another address or weight
	KindOut       Kind = "out"       // an instance is not in the set, in Consul's words, or a Judge forbids it clients
	KindHeld      Kind = "held"      // an instance should be out of the set, and is kept for now
	KindEjected   Kind = "ejected"   // an endpoint fails, and gets no clients until it is tried again and answers
	KindReturned  Kind = "returned"  // an ejected endpoint has answered, or the Judge allows clients again
	KindDrained   Kind = "drained"   // an operator has drained an endpoint
	KindUndrained Kind = "undrained" // an operator has ended that
	KindStale     Kind = "stale"     // the source of a service fails, or may hide instances
	KindRecovered Kind = "recovered" // the source answers again
	KindReload    Kind = "reload"    // a reload has ended
	KindUpgrade   Kind = "upgrade"   // an upgrade has failed; after one that succeeds nobody can ask this process
	KindFailover  Kind = "failover"  // a service goes to another of its sources, or back
	KindLogLevel  Kind = "log_level" // the log level has changed
)

// Events keep the last events, and wake whoever waits for the next one. Safe for concurrent use.
type Events struct {
	mu   sync.Mutex       // guards the following
	ring [MaxEvents]Event // the event of number n is at n % MaxEvents
	base uint64           // number before that of the oldest that there ever was
	last uint64           // number of the newest; base: there is none yet
	more chan struct{}    // closed at the next event
}

// NewEvents returns Events that are empty.
func NewEvents() *Events { return &Events{more: make(chan struct{})} }

// Begin has the number of the first event be above after. A client that has read the events of an earlier process goes
// on with those of this one then. It must be called before the first Add. Without Begin the first is 1.
func (l *Events) Begin(after uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.base, l.last = after, after
}

// Last returns the number of the newest event.
func (l *Events) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Add keeps e, in place of the oldest event if there are MaxEvents. It gives e a number and, unless it has one, the
// time.
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

// Instance adds an event for each service of which, or of an instance of which, a source says something.
func (l *Events) Instance(e discovery.Event) {
	kind, text := KindOut, e.Instance+": "+e.Text
	switch e.Kind {
	case discovery.EventHeld:
		kind = KindHeld
	case discovery.EventFailover:
		kind, text = KindFailover, e.Text
	}
	for _, service := range e.Services {
		l.Add(Event{Kind: kind, Service: service, Endpoint: e.Instance, Text: text})
	}
}

// Health adds an event: an endpoint is ejected, or is no longer.
func (l *Events) Health(c lb.HealthChange) {
	e := Event{Kind: KindReturned, Service: c.Service, Endpoint: c.Endpoint, Text: c.Endpoint + " can be reached again"}
	if c.Ejected {
		e.Kind = KindEjected
		again := c.TryIn.Round(100 * time.Millisecond)
		e.Text = fmt.Sprintf("%s is left out: %s; it is tried again in %v", c.Endpoint, c.Cause, again)
	}
	l.Add(e)
}

// After returns events with numbers above seq: the newest ones, at most limit, oldest first. If service is not empty,
// it returns only events of that service. A seq above all numbers is of another process, whose clock was ahead: After
// returns events as for zero then. next is the number to go on after. more is closed at the next event, of
// whatever service.
func (l *Events) After(seq uint64, service string, limit int) (events []Event, next uint64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	events = []Event{}
	if seq > l.last {
		seq = 0
	}
	first := max(seq, l.base) + 1
	if l.last >= MaxEvents {
		first = max(first, l.last-MaxEvents+1)
	}
	for n := l.last; n >= first && len(events) < limit; n-- {
		if e := l.ring[n%MaxEvents]; service == "" || e.Service == service {
			events = append(events, e)
		}
	}
	slices.Reverse(events)
	return events, l.last, l.more
}
