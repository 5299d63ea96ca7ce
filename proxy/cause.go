package proxy

import (
	"errors"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// causeOf returns the same as lb.CauseOf, but also knows the errors of this package. An address that Options.Admit has
// refused says nothing about the endpoint.
func causeOf(err error) (cause lb.Cause, local bool) {
	if errors.As(err, new(*barredError)) {
		return 0, true
	}
	if errors.Is(err, errNoTLS) {
		return lb.Handshake, false
	}
	return lb.CauseOf(err)
}

// isRefusal reports whether err means that no process listens at the endpoint, or that its host cannot be reached. err
// comes from a UDP socket connected to an endpoint. Other errors say nothing about the endpoint, or are temporary.
func isRefusal(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && isRefusalErrno(errno)
}

// isRefusalErrno is isRefusal for the bare error of a system call. isRefusalErrno does not allocate, so it may be
// called for each datagram.
func isRefusalErrno(err syscall.Errno) bool {
	return err == syscall.ECONNREFUSED || err == syscall.EHOSTUNREACH || err == syscall.ENETUNREACH
}

// A Refusal is the reason why a client got no endpoint.
type Refusal int

// The reasons why a client got no endpoint.
const (
	RefusedUnknown     Refusal = iota // nothing is known of the service yet
	RefusedNoEndpoints                // the service has no endpoints
	RefusedUnreached                  // every endpoint that was tried failed
	RefusedFull                       // no endpoint had a free slot in time
	RefusedRetries                    // the first endpoint failed, and the retry budget is exhausted
	RefusedDescriptors                // no descriptor was left for a UDP session
	RefusedPerClient                  // the client was at its limit of connections or sessions
	RefusedNotAllowed                 // the client may not come, see Service.Allow
	RefusedProxyHeader                // the client did not send the PROXY header that it must send
	RefusedHandshake                  // the TLS handshake with the client failed
	RefusedNoRoute                    // the client's first bytes choose no service, see Service.SNI
	RefusedDenied                     // the endpoint denied the connection, see EndpointTLS.Denies
	RefusedPerIdentity                // the client's identity was at its limit of connections
	RefusedIntention                  // the client may not use the service because of its identity, see ErrForbidden
	refusals           int     = iota
)

// RefusedBy holds the number of refused clients for each Refusal.
type RefusedBy [refusals]int64

// String returns a word for the reason, as in metrics.
func (r Refusal) String() string {
	return [...]string{"unknown", "no_endpoints", "unreached", "full", "retries_held", "descriptors", "per_client",
		"not_allowed", "proxy_header", "handshake", "no_route", "denied", "per_identity", "intention"}[r]
}

// refusalOf returns the Refusal for an error that was passed to unserved.
func refusalOf(err error) Refusal {
	switch err { // first, because a search in err allocates memory
	case errClientLimit:
		return RefusedPerClient
	case errNotAllowed:
		return RefusedNotAllowed
	}
	if e := identityErrorIn(err); e != nil {
		return e.refusal
	}
	switch {
	case denialIn(err) != nil:
		return RefusedDenied
	case errors.Is(err, errProxyHeader):
		return RefusedProxyHeader
	case errors.Is(err, errClientHandshake):
		return RefusedHandshake
	case errors.Is(err, errNoRoute):
		return RefusedNoRoute
	case errors.Is(err, errOutOfDescriptors):
		return RefusedDescriptors
	case errors.Is(err, lb.ErrMissingServiceEntry):
		return RefusedUnknown
	case errors.Is(err, lb.ErrFull):
		return RefusedFull
	case errors.Is(err, lb.ErrRetryBudget):
		return RefusedRetries
	case errors.Is(err, lb.ErrMissingEndpoints):
		return RefusedNoEndpoints
	}
	return RefusedUnreached
}

// earlyReset is the age up to which a reset before the endpoint's first byte counts against the endpoint. A later reset
// more likely means that the endpoint has closed the connection of a silent client.
const earlyReset = 10 * time.Second

// outOfPorts reports whether a socket cannot be connected because all local ports for such sockets are in use. With all
// local ports in use, Linux's connect(2) returns EAGAIN, and other systems return EADDRNOTAVAIL.
func outOfPorts(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EADDRNOTAVAIL)
}
