package kernel

import (
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Options are the options of Open.
type Options struct {
	// Cgroup is the path of a control group in the cgroup2 hierarchy, such as "/system.slice", as in /proc/PID/cgroup,
	// or of its directory, such as "/sys/fs/cgroup/system.slice". Only clients in this group and below use the kernel
	// path. If Cgroup is empty, all clients of this host use it.
	Cgroup string

	Logger hclog.Logger // nil: no logging

	// Events receives what happens to connections. It is called from one goroutine, and must not call the Path. When
	// it is slow, events are lost; the counters are not. Nil means that only the counters are wanted.
	Events func(Event)
}

// A Service is one service on the kernel path.
type Service struct {
	Name string
	UDP  bool // UDP, not TCP; a service must not change this

	// Listen has the addresses of the service's listeners. The unspecified IPv4 address stands for all IPv4 addresses
	// of this host; the unspecified IPv6 address for all addresses of this host, as it does for a listener.
	Listen []netip.AddrPort

	Endpoints []Endpoint

	// ConnectTimeout is the time after which an unanswered connection counts as a failure of the endpoint, even if the
	// client waits on. It is checked when the kernel sends a SYN again, which is every second at first. Zero or
	// negative: such connections are no failures. A client that gives up earlier is never a failure.
	ConnectTimeout time.Duration

	// IdleTimeout is the time without datagrams after which the next datagram of an unconnected UDP socket goes to
	// another endpoint. Zero or negative: only when the endpoint leaves. Connected sockets keep their endpoint.
	IdleTimeout time.Duration
}

// An Endpoint is one endpoint of a Service.
type Endpoint struct {
	Addr netip.AddrPort // must have no zone

	// Weight is the endpoint's share of the connections. Zero and negative weights count as 1.
	Weight int

	// Key identifies the endpoint in events and counters. No two endpoints of a service may have the same key. An
	// endpoint that keeps its key and its address keeps its counters, also if it leaves and comes back. Only if over a
	// thousand endpoints of a service have left, or if the maps are full, some of these are forgotten.
	Key uint64
}

// An Event says how connections to an endpoint go. Connections that succeed as the one before cause no event.
type Event struct {
	Service string
	Key     uint64 // of the endpoint
	Kind    EventKind
}

// EventKind is the kind of an Event.
type EventKind int

// The kinds of events. A connection that its client has closed before it was established causes none.
const (
	Recovered   EventKind = 1 + iota // the first connection after a failure is established
	Refused                          // the endpoint has answered with a reset
	Unreachable                      // the network has answered that the endpoint cannot be reached
	TimedOut                         // the endpoint has not answered within the service's ConnectTimeout
)

// String returns the name of the kind, such as "refused".
func (k EventKind) String() string {
	switch k {
	case Recovered:
		return "recovered"
	case Refused:
		return "refused"
	case Unreachable:
		return "unreachable"
	case TimedOut:
		return "timed out"
	}
	return "unknown"
}

// Counters counts the connections on the kernel path. All but Open only grow. For UDP, only Picks and Connections
// count: sessions of unconnected sockets, and connects. The programs see neither the bytes nor the ends of sessions.
type Counters struct {
	Picks       uint64 // times that a client was sent to the endpoint
	Open        uint64 // connections that are being established or are established
	Connections uint64 // connections that were established
	Refused     uint64 // see Refused
	Unreachable uint64 // see Unreachable
	TimedOut    uint64 // see TimedOut
	Abandoned   uint64 // connections that their clients ended before they were established

	// Sent and Received count the bytes that clients have sent and received on connections that have ended.
	Sent     uint64
	Received uint64
}

// Add adds the counts of other, Open included, to those of c.
func (c *Counters) Add(other Counters) {
	c.Picks += other.Picks
	c.Open += other.Open
	c.Connections += other.Connections
	c.Refused += other.Refused
	c.Unreachable += other.Unreachable
	c.TimedOut += other.TimedOut
	c.Abandoned += other.Abandoned
	c.Sent += other.Sent
	c.Received += other.Received
}

// EndpointCounters has the Counters of one endpoint.
type EndpointCounters struct {
	Key  uint64
	Addr netip.AddrPort
	Left bool // the endpoint has left the service; it goes on counting if it comes back soon enough
	Counters
}
