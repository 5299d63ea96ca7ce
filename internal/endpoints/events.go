package endpoints

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// MaxEvents is the number of events that are kept.
const MaxEvents = 1024

// An Event is something that happened. Add sets its Seq and, if Time is zero, its Time.
type Event struct {
	Seq      uint64 // increases by one; Events.Begin sets the first
	Time     time.Time
	Kind     Kind
	Service  string // empty if the event concerns no service
	Endpoint string // ID of the endpoint; empty if the event concerns no endpoint
	Text     string // description for operators
}

// A Kind is the type of an event.
type Kind string

// The kinds of events.
const (
	KindJoined    Kind = "joined"    // an endpoint has joined its service's set
	KindLeft      Kind = "left"      // an endpoint has left the set
	KindChanged   Kind = "changed"   // an endpoint has another address or weight
	KindOut       Kind = "out"       // an instance is left out of the set by its source, or a Judge forbids it clients
	KindHeld      Kind = "held"      // an instance stays in the set for a while although Consul no longer reports it
	KindEjected   Kind = "ejected"   // an endpoint fails, and gets no clients until a new attempt succeeds
	KindReturned  Kind = "returned"  // an ejected endpoint has answered, or the Judge allows it clients again
	KindDrained   Kind = "drained"   // an operator has drained an endpoint
	KindUndrained Kind = "undrained" // an operator has undrained an endpoint
	KindStale     Kind = "stale"     // the source of a service fails, or may hide instances
	KindRecovered Kind = "recovered" // the source answers again
	KindReload    Kind = "reload"    // a reload has ended
	KindUpgrade   Kind = "upgrade"   // an upgrade has failed (after a successful one, another process has the events)
	KindFailover  Kind = "failover"  // a service switches to another of its sources, or back
	KindLogLevel  Kind = "log_level" // the log level has changed
)

// Events keep the last events, and wake the readers that wait for the next one. Events are safe for concurrent use.
type Events struct {
	mu   sync.Mutex       // guards the fields below
	ring [MaxEvents]Event // event number n is at n % MaxEvents
	base uint64           // number before the first event
	last uint64           // number of the newest event; equal to base if there is none
	more chan struct{}    // closed at the next event
}

// NewEvents returns an empty Events.
func NewEvents() *Events { return &Events{more: make(chan struct{})} }

// Begin makes the first event's number follow after. A client that has read the events of an earlier process can then
// continue with those of this process. Begin must be called before the first Add. Without Begin, the first number is 1.
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

// Add stores e and discards the oldest event beyond MaxEvents. Add gives e the next number and, if e has none, the
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

// Instance adds an event for each service that a source's event concerns.
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

// Health adds an event for the ejection of an endpoint, or for its end.
func (l *Events) Health(c lb.HealthChange) {
	e := Event{Kind: KindReturned, Service: c.Service, Endpoint: c.Endpoint, Text: c.Endpoint + " can be reached again"}
	if c.Ejected {
		e.Kind = KindEjected
		again := c.TryIn.Round(100 * time.Millisecond)
		e.Text = fmt.Sprintf("%s is ejected: %s; it is tried again in %v", c.Endpoint, c.Cause, again)
	}
	l.Add(e)
}

// After returns the newest events with numbers above seq, at most limit of them, oldest first. If service is not empty,
// After returns only events of that service. If seq is above all numbers, it comes from another process with a clock
// that was ahead, and After treats it as zero. The result next is the number to continue after. The channel more is
// closed at the next event of any service.
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
