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
	if errors.Is(err, context.Canceled) {
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

// earlyReset is how old a connection may be for a reset before the endpoint's first byte to count against the endpoint. Later it is more
// likely that the endpoint has lost patience with a silent client.
const earlyReset = 10 * time.Second
