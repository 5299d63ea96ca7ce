package endpoints

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// An Event is something that happened. Add sets its Seq and, if Time is zero, its Time.
type Event struct {
	Seq      uint64    `json:"seq"` // increases by one; Events.Begin sets the first
	Time     time.Time `json:"time"`
	Kind     Kind      `json:"kind"`               // never empty
	Service  string    `json:"service,omitempty"`  // empty if the event concerns no service, or several
	Services []string  `json:"services,omitempty"` // sorted names, if the event concerns several; must not be changed
	Endpoint string    `json:"endpoint,omitempty"` // ID of the endpoint; empty if the event concerns no endpoint
	Text     string    `json:"text"`               // description for operators

	judged bool // a verdict of the Judge, which logs it itself
}

// concerns reports whether e concerns a service.
func (e *Event) concerns(service string) bool {
	if len(e.Services) == 0 {
		return e.Service == service
	}
	_, is := slices.BinarySearch(e.Services, service)
	return is
}

// A Kind is the type of an event.
type Kind string

// The kinds of events.
const (
	KindJoined    Kind = "joined"    // an endpoint has joined its service's set
	KindLeft      Kind = "left"      // an endpoint has left the set
	KindChanged   Kind = "changed"   // an endpoint has another address, weight or server name
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
	KindDenied    Kind = "denied"    // an endpoint denies connections of this host
	KindAllowed   Kind = "allowed"   // an endpoint that denied connections has answered one
	KindMoved     Kind = "moved"     // Lictor uses another address of Consul
	KindExposed   Kind = "exposed"   // an instance of this host is served to the service mesh, or is not any more
	KindForbidden Kind = "forbidden" // a client may not use an exposed service because of its identity

	// Files with certificates of a service have changed, cannot be used, or expire.
	KindCertificate Kind = "certificate"
)

// Events keep the last events, and wake the readers that wait for the next one. Events are safe for concurrent use.
type Events struct {
	journal *journal // nil if nothing is logged

	mu   sync.Mutex // guards the fields below
	ring ring
	last uint64        // number of the newest event; if there is none, the number before the first
	more chan struct{} // closed at the next event
}

// NewEvents returns an empty Events that logs nothing.
func NewEvents() *Events { return &Events{more: make(chan struct{})} }

// LogTo makes l log which endpoints join, leave, change, are ejected and drained, and the ends of that, until EndLog.
// The number of lines is limited. LogTo must be called before the first Add.
func (l *Events) LogTo(log hclog.Logger) { l.journal = newJournal(log) }

// EndLog ends what LogTo has begun. Events that happen later are not logged.
func (l *Events) EndLog() {
	if l.journal != nil {
		l.journal.close()
	}
}

// Begin makes the first event's number follow after, and begins with the events of an earlier process, which Export
// returned. A client that has read events of the earlier process can then continue with those of this process. Begin
// must be called before the first Add. Without Begin, the first number is 1.
func (l *Events) Begin(after uint64, earlier []Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range earlier {
		if e.Kind != "" && e.Seq > l.last && e.Seq <= after { // otherwise the other process is not to be trusted
			l.last = e.Seq
			l.ring.add(bounded(e))
		}
	}
	l.last = after
}

// Export returns all events, oldest first, for Begin of another process. The result has at most MaxEvents events, and
// each event's text is bounded.
func (l *Events) Export() []Event {
	events, _, _ := l.After(0, "", MaxEvents)
	return events
}

// Last returns the number of the newest event.
func (l *Events) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Add stores events that happened together, oldest first. If there are more than MaxEvents, Add discards old ones: see
// ring. Add gives each event the next number and, if the event has none, the time.
func (l *Events) Add(events ...Event) {
	if len(events) == 0 {
		return
	}
	l.keep(events)
	if l.journal != nil {
		l.journal.note(events)
	}
}

// keep stores events, and wakes the readers.
func (l *Events) keep(events []Event) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.last++
		e.Seq = l.last
		if e.Time.IsZero() {
			e.Time = now
		}
		l.ring.add(bounded(e))
	}
	close(l.more)
	l.more = make(chan struct{})
}

// bounded returns e with a text that is not too long.
func bounded(e Event) Event {
	const dots = "..."
	if len(e.Text) > maxText {
		e.Text = strings.ToValidUTF8(e.Text[:maxText-len(dots)], "") + dots
	}
	return e
}

// Discovered adds the event of a source. An event about an instance becomes one event for each service. A failure of
// the source, or its end, stays one event for all services.
func (l *Events) Discovered(e discovery.Event) {
	kind, text := KindOut, e.Instance+": "+e.Text
	switch e.Kind {
	case discovery.EventStale, discovery.EventRecovered:
		one := Event{Kind: Kind(e.Kind), Services: e.Services, Text: e.Text}
		if len(e.Services) == 1 {
			one.Service, one.Services = e.Services[0], nil
		}
		l.Add(one)
		return
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
		again := c.TryIn.Round(10 * time.Millisecond)
		e.Text = fmt.Sprintf("%s is ejected: %s; it is tried again in %v", c.Endpoint, c.Cause, again)
	}
	l.Add(e)
}

// Denial adds an event for an endpoint that begins to deny connections, or that answers again.
func (l *Events) Denial(c lb.DenialChange) {
	e := Event{Kind: KindAllowed, Service: c.Service, Endpoint: c.Endpoint,
		Text: c.Endpoint + " answers again, after it has denied connections"}
	if c.Denied {
		e.Kind, e.Text = KindDenied, c.Endpoint+" denies connections: "+c.Why
	}
	l.Add(e)
}

// After returns the newest events with numbers above seq, at most limit of them, oldest first. If service is not empty,
// After returns only events that concern that service. If seq is above all numbers, it comes from another process with
// a clock that was ahead, and After treats it as zero. The result next is the number to continue after. The channel
// more is closed at the next event of any service.
func (l *Events) After(seq uint64, service string, limit int) (events []Event, next uint64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq > l.last {
		seq = 0
	}
	events = l.ring.after(seq, limit, func(e *Event) bool { return service == "" || e.concerns(service) })
	return events, l.last, l.more
}
