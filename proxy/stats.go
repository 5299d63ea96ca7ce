package proxy

import "sync/atomic"

// counters are a service's, written on the data path and read by snapshots.
type counters struct {
	_                          [64]byte // keeps them off the cache line of their neighbours
	connections, active        atomic.Int64
	dialsFailed, refused       atomic.Int64
	bytesUp, bytesDown         atomic.Int64
	sessions, sessionsActive   atomic.Int64
	sessionsEvicted            atomic.Int64
	datagramsUp, datagramsDown atomic.Int64
	datagramsDropped           atomic.Int64
}

// Stats are the counters of one service since the proxier knows it. Up is from client to endpoint, down the other way.
type Stats struct {
	Service string

	Connections       int64 // TCP connections accepted
	ConnectionsActive int64
	DialsFailed       int64 // each endpoint that was tried in vain
	Refused           int64 // clients that no endpoint could be found for
	BytesUp           int64
	BytesDown         int64

	Sessions         int64 // UDP sessions begun
	SessionsActive   int64
	SessionsEvicted  int64 // ended before their time, to make room
	DatagramsUp      int64
	DatagramsDown    int64
	DatagramsDropped int64
}

// stats adds up the counters of all loops.
func (s *service) stats() Stats {
	t := Stats{Service: s.name()}
	for i := range s.counters {
		c := &s.counters[i]
		t.Connections += c.connections.Load()
		t.ConnectionsActive += c.active.Load()
		t.DialsFailed += c.dialsFailed.Load()
		t.Refused += c.refused.Load()
		t.BytesUp += c.bytesUp.Load()
		t.BytesDown += c.bytesDown.Load()
		t.Sessions += c.sessions.Load()
		t.SessionsActive += c.sessionsActive.Load()
		t.SessionsEvicted += c.sessionsEvicted.Load()
		t.DatagramsUp += c.datagramsUp.Load()
		t.DatagramsDown += c.datagramsDown.Load()
		t.DatagramsDropped += c.datagramsDropped.Load()
	}
	return t
}
