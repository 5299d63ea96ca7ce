package lb

import "sync/atomic"

// A Member is an endpoint in its service, as NextEndpoint hands it out: what it is, and where whoever uses it tells how that goes. It
// stays good when the endpoint has left. Its methods may be called concurrently; the Endpoint must not be changed.
//
// Each pick is one use: it is over with Done, and meanwhile Failed may be called.
type Member struct {
	Endpoint
	*tally
}

// A tally is what is known of an endpoint from its use. It outlives a change of the endpoint's weight, but not of its address.
type tally struct {
	left   atomic.Bool
	open   atomic.Int64 // uses that are not over
	failed atomic.Int64
}

func newMember(e Endpoint) *Member { return &Member{e, new(tally)} }

// renewed is the member for e, which has the same ID: m itself if nothing changed.
func (m *Member) renewed(e Endpoint) *Member {
	switch {
	case m.Endpoint == e:
		return m
	case m.Host == e.Host && m.Addr == e.Addr:
		return &Member{e, m.tally}
	}
	return newMember(e)
}

func (t *tally) picked() { t.open.Add(1) }

// Left tells whether the endpoint has left its service, or is at another address now. It is one atomic load.
func (t *tally) Left() bool { return t.left.Load() }

// Failed notes that the endpoint was not reached: the dial failed, or a datagram was refused.
func (t *tally) Failed() { t.failed.Add(1) }

// Done ends what the pick began.
func (t *tally) Done() { t.open.Add(-1) }
