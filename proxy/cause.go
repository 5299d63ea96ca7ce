package proxy

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// causeOf is what a failure to reach an endpoint says about it. Ours means nothing: the fault is this host's, or the client gave up.
func causeOf(err error) (cause lb.Cause, ours bool) {
	if errors.Is(err, context.Canceled) || errors.Is(err, lb.ErrLookups) || errors.As(err, new(*barredError)) {
		return 0, true
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return lb.Unreachable, false // a deadline, or a host name
	}
	switch errno {
	case syscall.ECONNREFUSED:
		return lb.Refused, false
	case syscall.ECONNRESET, syscall.EPIPE:
		return lb.Reset, false
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, // descriptors, memory
		syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EAGAIN, // ports to dial from
		syscall.EACCES, syscall.EPERM: // a filter on this host
		return 0, true
	}
	return lb.Unreachable, false
}

// A Refusal is why a client got no endpoint.
type Refusal int

// The reasons.
const (
	RefusedUnknown     Refusal = iota // nothing is known of the service yet
	RefusedNoEndpoints                // it has none
	RefusedUnreached                  // none of those that were tried was reached
	RefusedFull                       // there was no room, or not in time
	RefusedRetries                    // the first was not reached, and too many fail to try more
	RefusedDescriptors                // of the process have run out, for a UDP session
	RefusedPerClient                  // it had as many connections or sessions as one client may
	refusals           int     = iota
)

// String is a word for it.
func (r Refusal) String() string {
	return [...]string{"unknown", "no_endpoints", "unreached", "full", "retries_held", "descriptors", "per_client"}[r]
}

// refusalOf is what the error comes to that unserved is told.
func refusalOf(err error) Refusal {
	switch {
	case err == errClientLimit:
		return RefusedPerClient
	case errors.Is(err, errOutOfDescriptors):
		return RefusedDescriptors
	case errors.Is(err, lb.ErrMissingServiceEntry):
		return RefusedUnknown
	case errors.Is(err, lb.ErrFull):
		return RefusedFull
	case errors.Is(err, lb.ErrRetriesHeld):
		return RefusedRetries
	case errors.Is(err, lb.ErrMissingEndpoints):
		return RefusedNoEndpoints
	}
	return RefusedUnreached
}

// earlyReset is how old a connection may be for a reset before the endpoint's first byte to count against the endpoint. Later it is more
// likely that the endpoint has lost patience with a silent client.
const earlyReset = 10 * time.Second
