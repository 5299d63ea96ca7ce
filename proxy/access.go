package proxy

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An AccessRecord is what there is to say of a TCP connection or a UDP session that has ended. A UDP client that got
// no session has none.
type AccessRecord struct {
	Service  string
	Protocol Protocol
	Client   netip.AddrPort
	Endpoint lb.Endpoint // zero: none was reached
	Ended    time.Time   // when
	// Connect is the time from the arrival of a TCP client until an endpoint was reached, including those that were
	// tried in vain. Zero: none was reached.
	Connect  time.Duration
	Duration time.Duration // in all
	Up, Down int64         // bytes, to the endpoint and from it
	Reason   string        // of the end, see the constants; of a failure also a colon and the error of the system

	DatagramsUp, DatagramsDown int64 // UDP: likewise
}

// Reasons for the end of a connection: who ended it first, and whether properly.
const (
	ReasonUnserved       = "unserved"         // no endpoint was reached
	ReasonPerClient      = "per-client limit" // no endpoint was asked for, see Service.MaxPerClient
	ReasonClientClosed   = "client closed"
	ReasonEndpointClosed = "endpoint closed"
	ReasonClientFailed   = "client failed" // mostly by a reset
	ReasonEndpointFailed = "endpoint failed"
)

// Reasons for the end of both.
const (
	ReasonIdle = "idle"
	// The endpoint left the service: OnLeave ends connections then, and the client of a session goes on with another
	// endpoint at its next datagram.
	ReasonEndpointLeft = "endpoint left"
	ReasonAge          = "max age" // TCP
	ReasonCut          = "cut"     // by a shutdown
)

// Reasons for the end of a session.
const (
	ReasonAnswered        = "answered"         // all responses that there are to be have come
	ReasonSent            = "sent"             // all requests that it may have are sent, and no responses are expected
	ReasonEvicted         = "evicted"          // to make room for another
	ReasonEndpointRefused = "endpoint refused" // a datagram
	ReasonEndpointEjected = "endpoint ejected" // it failed for others, and the client goes on with another
	ReasonReplaced        = "replaced"         // the listener serves another service now
	ReasonDrained         = "drained"          // it was quiet, and its listener is about to be closed
)

// An accessTap is who is told of records; nobody, at first. It is shared by all services.
type accessTap struct {
	to atomic.Pointer[func(AccessRecord)]
}

// wanted tells whether records are worth making. A nil accessTap wants none.
func (t *accessTap) wanted() bool { return t != nil && t.to.Load() != nil }

// set makes f the one who is told; nil for nobody.
func (t *accessTap) set(f func(AccessRecord)) {
	if f == nil {
		t.to.Store(nil)
		return
	}
	t.to.Store(&f)
}
