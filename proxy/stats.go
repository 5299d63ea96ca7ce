package proxy

import "sync/atomic"

// counters are a service's, written on the data path and read by snapshots.
type counters struct {
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

func (c *counters) snapshot(name string) Stats {
	return Stats{
		Service:           name,
		Connections:       c.connections.Load(),
		ConnectionsActive: c.active.Load(),
		DialsFailed:       c.dialsFailed.Load(),
		Refused:           c.refused.Load(),
		BytesUp:           c.bytesUp.Load(),
		BytesDown:         c.bytesDown.Load(),
		Sessions:          c.sessions.Load(),
		SessionsActive:    c.sessionsActive.Load(),
		SessionsEvicted:   c.sessionsEvicted.Load(),
		DatagramsUp:       c.datagramsUp.Load(),
		DatagramsDown:     c.datagramsDown.Load(),
		DatagramsDropped:  c.datagramsDropped.Load(),
	}
}
