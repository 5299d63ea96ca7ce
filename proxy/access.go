package proxy

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An AccessRecord describes a TCP connection or a UDP session that has ended. A UDP client that got no session has no
// record.
type AccessRecord struct {
	Service  string
	Protocol Protocol
	Listener lb.Addr        // the listener's own address, which may be a wildcard
	Client   netip.AddrPort // invalid for a client of a Unix socket, which has no address
	Endpoint lb.Endpoint    // zero if no endpoint was reached and none has denied the connection
	Ended    time.Time      // time of the end
	// Connect is the time from the arrival of a TCP client until an endpoint was reached, including failed attempts
	// with other endpoints. A Connect of zero means that no endpoint was reached.
	Connect  time.Duration
	Duration time.Duration // how long the connection or session lasted
	Up, Down int64         // bytes to the endpoint and from the endpoint
	Reason   string        // one of the constants below
	Refused  string        // the word of the Refusal if the client got no endpoint; otherwise empty
	Err      error         // the system's error, or that of TLS, if one side failed; why, with ReasonIntention; or nil
	TLS      *TLSPeer      // what the TLS handshake with the client has shown; nil if there was none

	DatagramsUp, DatagramsDown int64 // UDP: datagrams to the endpoint and from the endpoint
}

// UnixClient stands for the address of a client that has none, because it has dialled a Unix socket.
const UnixClient = "unix"

// clientName returns what stands for a client in the log.
func clientName(client netip.AddrPort) any {
	if !client.IsValid() {
		return UnixClient
	}
	return client
}

// Reasons for the end of a TCP connection. Each reason says which side ended the connection first, and whether by a
// close or by a failure.
const (
	ReasonUnserved       = "unserved"                  // no endpoint was reached for the client
	ReasonDenied         = "denied by the destination" // see EndpointTLS.Denies
	ReasonIntention      = "denied by an intention"    // see ErrForbidden and Proxier.Reexamine
	ReasonPerClient      = "per-client limit"          // the client was at its limit, see Service.MaxPerClient
	ReasonPerIdentity    = "per-identity limit"        // the same for its identity, see Service.MaxPerIdentity
	ReasonClientClosed   = "client closed"
	ReasonEndpointClosed = "endpoint closed"
	ReasonClientFailed   = "client failed" // the client's connection failed, usually by a reset
	ReasonEndpointFailed = "endpoint failed"
)

// Reasons for the end of a TCP connection or a UDP session.
const (
	ReasonIdle = "idle"
	// The endpoint left the service. OnLeave says when a TCP connection ends then. The client of a UDP session gets
	// another endpoint at its next datagram.
	ReasonEndpointLeft = "endpoint left"
	ReasonAge          = "max age" // a TCP connection is older than Service.MaxAge
	// A TCP client may not come, or a reload has forbidden the client of a UDP session; see Service.Allow.
	ReasonNotAllowed = "not allowed"
	ReasonCut        = "cut" // a shutdown has cut the connection or session
)

// Reasons for the end of a UDP session.
const (
	ReasonAnswered        = "answered"         // all answers that the session expected have come
	ReasonSent            = "sent"             // all datagrams of a one-way session are sent
	ReasonEvicted         = "evicted"          // the session ended early for another client
	ReasonEndpointRefused = "endpoint refused" // the endpoint refused a datagram
	ReasonEndpointEjected = "endpoint ejected" // the endpoint failed for other clients; this client gets another one
	ReasonReplaced        = "replaced"         // the session's listener serves another service now
	ReasonDrained         = "drained"          // the session was quiet when its listener closed
)

// An accessTap holds the function that receives records, if any. All services share one accessTap.
type accessTap struct {
	to atomic.Pointer[func(AccessRecord)]
}

// wanted reports whether a function receives records. A nil accessTap wants no records.
func (t *accessTap) wanted() bool { return t != nil && t.to.Load() != nil }

// set replaces the function that receives records. A nil f removes the function.
func (t *accessTap) set(f func(AccessRecord)) {
	if f == nil {
		t.to.Store(nil)
		return
	}
	t.to.Store(&f)
}
