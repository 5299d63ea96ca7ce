package proxy

import (
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// counters are a service's, written on the data path and read by snapshots.
type counters struct {
	_                          [64]byte // keeps them off the cache line of their neighbours
	connections, active        atomic.Int64
	dialsFailed                [dialFailures]atomic.Int64 // by lb.Cause; 0: the fault is this host's
	refused                    [refusals]atomic.Int64
	retries, descriptorWaits   atomic.Int64
	endedLeft, endedAged       atomic.Int64
	bytesUp, bytesDown         atomic.Int64
	sessions, sessionsActive   atomic.Int64
	sessionsEvicted            atomic.Int64
	datagramsUp, datagramsDown atomic.Int64
	datagramsDropped           atomic.Int64
	datagramsOverrun           atomic.Int64
	dials                      histogram
}

// DialBounds are the upper bounds of the buckets in which dials are counted, smallest first. The last bucket has none.
func DialBounds() [dialBuckets - 1]time.Duration {
	return [...]time.Duration{
		100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
		50 * time.Millisecond,
		100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
	}
}

const dialBuckets = 14

// A histogram counts how long dials took.
type histogram struct {
	buckets [dialBuckets]atomic.Int64
	sum     atomic.Int64 // nanoseconds
}

func (h *histogram) observe(took time.Duration) {
	bounds, i := DialBounds(), 0
	for i < len(bounds) && took > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(took))
}

// Dials are the dials that succeeded, by how long the client waited for them, endpoints tried in vain before included.
type Dials struct {
	Buckets [dialBuckets]int64 // not cumulative; see DialBounds
	Sum     time.Duration
}

// Count is how many there were.
func (d *Dials) Count() (n int64) {
	for _, b := range d.Buckets {
		n += b
	}
	return n
}

// Stats are the counters of one service since the proxier knows it. Up is from client to endpoint, down the other way.
type Stats struct {
	Service string

	Connections       int64 // TCP connections accepted
	ConnectionsActive int64
	DialsFailed       int64 // each endpoint that was tried in vain
	Refused           int64 // clients that no endpoint could be found for
	EndedLeft         int64 // TCP connections cut because their endpoint had left
	EndedAged         int64 // TCP connections ended because they had grown too old
	Retries           int64 // endpoints that clients got after others that were tried in vain
	DescriptorWaits   int64 // how often TCP clients had to wait for descriptors
	BytesUp           int64
	BytesDown         int64
	Dials             Dials // TCP

	Sessions         int64 // UDP sessions begun
	SessionsActive   int64
	SessionsEvicted  int64 // ended before their time, to make room
	DatagramsUp      int64
	DatagramsDown    int64
	DatagramsDropped int64
	DatagramsOverrun int64 // dropped by the kernel at the listener, before Lictor saw them

	DialsFailedBy [dialFailures]int64 // DialsFailed by lb.Cause; 0: the fault is this host's
	RefusedBy     [refusals]int64     // Refused by Refusal

	Descriptors Descriptors
}

// Descriptors is how many file descriptors a service has for its clients, and may have.
type Descriptors struct {
	Taken   int64 // now
	Floor   int64 // that it can always have; for a while after a reload it is less than what the service is to get
	Ceiling int64 // that it can have at most; after a reload Taken may be more
}

// dialFailures is how many causes a dial has to fail.
const dialFailures = int(lb.Reset) + 1

// An Activity is what a look at a service once a second takes: a few of its Stats. What belongs to TCP and to UDP is
// summed up.
type Activity struct {
	Clients  int64 // TCP connections accepted and UDP sessions begun
	Active   int64 // of those
	Bytes    int64 // both ways
	Dials    int64 // that succeeded
	DialTime time.Duration
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
	}
	return a
}

// stats adds up the counters of all loops.
func (s *service) stats() Stats {
	t := Stats{Service: s.name(), Descriptors: s.share.descriptors()}
	for i := range s.counters {
		c := &s.counters[i]
		t.Connections += c.connections.Load()
		t.ConnectionsActive += c.active.Load()
		t.EndedLeft += c.endedLeft.Load()
		t.EndedAged += c.endedAged.Load()
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
