package lb

import (
	"context"
	"errors"
	"syscall"
)

// CauseOf returns the cause of err, which is the error of a dial or a datagram to an endpoint. If local is true, the
// error says nothing about the endpoint: this host lacks a resource or filters the packet, or the caller gave up. In
// that case the cause is zero, and Member.Failed must not be called.
func CauseOf(err error) (cause Cause, local bool) {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrLookups) {
		return 0, true
	}
	if errors.Is(err, errUnfit) {
		return Unfit, false
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return Unreachable, false // a timeout, or an unknown host name
	}
	switch errno {
	case syscall.ECONNREFUSED:
		return Refused, false
	case syscall.ECONNRESET, syscall.EPIPE:
		return Reset, false
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, // no descriptors or memory
		syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EAGAIN, // no local ports
		syscall.EACCES, syscall.EPERM: // a packet filter on this host
		return 0, true
	}
	return Unreachable, false
}
