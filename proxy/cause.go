package proxy

import (
	"errors"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// causeOf is lb.CauseOf for errors of the proxier too: that Options.Admit has refused an address says nothing about the
// endpoint.
func causeOf(err error) (cause lb.Cause, local bool) {
	if errors.As(err, new(*barredError)) {
		return 0, true
	}
	return lb.CauseOf(err)
}

// isRefusal reports whether err, of a datagram socket that is connected to an endpoint, says that nothing listens there
// or that there is no way to its host. Other errors of the socket say nothing about the endpoint, or pass.
func isRefusal(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && isRefusalErrno(errno)
}

// isRefusalErrno is isRefusal for the bare error of a system call. It costs no allocation, and may be called for each
// datagram.
func isRefusalErrno(err syscall.Errno) bool {
	return err == syscall.ECONNREFUSED || err == syscall.EHOSTUNREACH || err == syscall.ENETUNREACH
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
	case errors.Is(err, lb.ErrRetryBudget):
		return RefusedRetries
	case errors.Is(err, lb.ErrMissingEndpoints):
		return RefusedNoEndpoints
	}
	return RefusedUnreached
}

// earlyReset is how old a connection may be for a reset before the endpoint's first byte to count against the
// endpoint. Later it is more likely that the endpoint has lost patience with a silent client.
const earlyReset = 10 * time.Second

// outOfPorts tells whether a socket cannot be connected because all ports that the system gives to such sockets are
// in use: EAGAIN by Linux's connect(2), EADDRNOTAVAIL elsewhere.
func outOfPorts(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EADDRNOTAVAIL)
}
