package proxy

import (
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// counters are the counters of one service. The data path writes them, and snapshots read them.
type counters struct {
	_                          [64]byte // padding: no shared cache line with a neighbour
	connections, active        atomic.Int64
	dialsFailed                [dialFailures]atomic.Int64 // by lb.Cause; 0 means that this host failed
	refused                    [refusals]atomic.Int64
	retries, descriptorWaits   atomic.Int64
	endedLeft, endedAged       atomic.Int64
	endedIntention             atomic.Int64
	bytesUp, bytesDown         atomic.Int64
	sessions, sessionsActive   atomic.Int64
	sessionsEvicted            atomic.Int64
	datagramsUp, datagramsDown atomic.Int64
	datagramsDropped           atomic.Int64
	datagramsOverrun           atomic.Int64
	dials                      histogram
	handshakes                 handshakeCounters // with endpoints
}

// DialBounds returns the upper bounds of the buckets that count dials, in ascending order. The last bucket has no
// bound.
func DialBounds() [dialBuckets - 1]time.Duration {
	return [...]time.Duration{
		100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
		50 * time.Millisecond,
		100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
	}
}

const dialBuckets = 14

// A histogram counts dials by their duration.
type histogram struct {
	buckets [dialBuckets]atomic.Int64
	sum     atomic.Int64 // total duration of the dials in nanoseconds
}

func (h *histogram) observe(took time.Duration) {
	bounds, i := DialBounds(), 0
	for i < len(bounds) && took > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(took))
}

// Dials counts the successful dials by how long the client waited. The wait includes failed attempts with other
// endpoints.
type Dials struct {
	Buckets [dialBuckets]int64 // not cumulative; DialBounds has the bounds
	Sum     time.Duration
}

// Count returns the number of dials.
func (d *Dials) Count() (n int64) {
	for _, b := range d.Buckets {
		n += b
	}
	return n
}

// Stats are the counters of one service since Apply first named it. Up is from client to endpoint, down is from
// endpoint to client.
type Stats struct {
	Service string

	Connections       int64 // TCP connections that were accepted
	ConnectionsActive int64
	DialsFailed       int64 // failed attempts to reach an endpoint
	Refused           int64 // clients for which no endpoint was found
	EndedLeft         int64 // TCP connections cut because their endpoint had left
	EndedAged         int64 // TCP connections ended because of MaxAge
	EndedIntention    int64 // TCP connections reset by Proxier.Reexamine
	Retries           int64 // endpoints picked for clients after a failed attempt
	DescriptorWaits   int64 // how often TCP clients waited for descriptors
	BytesUp           int64
	BytesDown         int64
	Dials             Dials // successful dials of TCP connections

	Handshakes *Handshakes // TLS handshakes with endpoints; nil if the service has no EndpointTLS now

	Sessions         int64 // UDP sessions that have begun
	SessionsActive   int64
	SessionsEvicted  int64 // UDP sessions ended early to make place for others
	DatagramsUp      int64
	DatagramsDown    int64
	DatagramsDropped int64
	DatagramsOverrun int64 // UDP datagrams that the kernel dropped before Lictor read them

	DialsFailedBy [dialFailures]int64 // DialsFailed by lb.Cause; 0 means that this host failed
	RefusedBy     RefusedBy           // Refused clients by reason

	Descriptors Descriptors
}

// Descriptors says how many file descriptors a service uses for its clients, and how many it may use.
type Descriptors struct {
	Taken   int64 // descriptors in use by the service now
	Floor   int64 // descriptors guaranteed to the service; may be lower for a while after a reload
	Ceiling int64 // the most descriptors for the service; after a reload Taken may be higher
}

// dialFailures is one more than the last cause of a failed dial. Dials never fail as lb.Unfit.
const dialFailures = int(lb.Handshake) + 1

// An Activity holds the few Stats of a service that are sampled every second. TCP and UDP are added up.
type Activity struct {
	Clients  int64 // TCP connections accepted and UDP sessions begun
	Active   int64 // number of Clients that are still connected
	Bytes    int64 // bytes moved in both directions
	Dials    int64 // number of successful dials
	DialTime time.Duration

	RefusedBy RefusedBy // refused clients by reason
}

// activity adds up the counters of all loops.
func (s *service) activity() (a Activity) {
	for i := range s.counters {
		c := &s.counters[i]
		a.Clients += c.connections.Load() + c.sessions.Load()
		a.Active += c.active.Load() + c.sessionsActive.Load()
		a.Bytes += c.bytesUp.Load() + c.bytesDown.Load()
		for i := range c.dials.buckets {
			a.Dials += c.dials.buckets[i].Load()
		}
		a.DialTime += time.Duration(c.dials.sum.Load())
		for i := range c.refused {
			a.RefusedBy[i] += c.refused[i].Load()
		}
	}
	return a
}

// stats adds up the counters of all loops.
func (s *service) stats() Stats {
	spec := s.spec.Load()
	t := Stats{Service: spec.Name, Descriptors: s.share.descriptors()}
	if spec.EndpointTLS != nil {
		t.Handshakes = &Handshakes{}
	}
	for i := range s.counters {
		c := &s.counters[i]
		if t.Handshakes != nil {
			c.handshakes.addTo(t.Handshakes)
		}
		t.Connections += c.connections.Load()
		t.ConnectionsActive += c.active.Load()
		t.EndedLeft += c.endedLeft.Load()
		t.EndedAged += c.endedAged.Load()
		t.EndedIntention += c.endedIntention.Load()
		for i := range c.dialsFailed {
			n := c.dialsFailed[i].Load()
			t.DialsFailed += n
			t.DialsFailedBy[i] += n
		}
		for i := range c.refused {
			n := c.refused[i].Load()
			t.Refused += n
			t.RefusedBy[i] += n
		}
		t.Retries += c.retries.Load()
		t.DescriptorWaits += c.descriptorWaits.Load()
		t.BytesUp += c.bytesUp.Load()
		t.BytesDown += c.bytesDown.Load()
		t.Sessions += c.sessions.Load()
		t.SessionsActive += c.sessionsActive.Load()
		t.SessionsEvicted += c.sessionsEvicted.Load()
		t.DatagramsUp += c.datagramsUp.Load()
		t.DatagramsDown += c.datagramsDown.Load()
		t.DatagramsDropped += c.datagramsDropped.Load()
		t.DatagramsOverrun += c.datagramsOverrun.Load()
		for i := range c.dials.buckets {
			t.Dials.Buckets[i] += c.dials.buckets[i].Load()
		}
		t.Dials.Sum += time.Duration(c.dials.sum.Load())
	}
	return t
}
