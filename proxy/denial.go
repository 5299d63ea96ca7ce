package proxy

import (
	"errors"
	"net/netip"
	"syscall"

	"github.com/lictor-proxy/lictor/lb"
)

// This file has what both engines do with an endpoint that may deny its clients, see EndpointTLS.Denies.

// A deniedError says that an endpoint has denied a connection.
type deniedError struct {
	endpoint *lb.Member
	why      error // wraps lb.ErrDenied
}

func (e *deniedError) Error() string { return dialError(e.endpoint, e.why).Error() }
func (e *deniedError) Unwrap() error { return e.why }

// denialOf returns the error of a client whose connection to m TLS has ended with err before m sent anything. The
// result is nil if m has not denied the connection. may says whether EndpointTLS.Denies holds for the connection.
func denialOf(m *lb.Member, may bool, err error) *deniedError {
	if !may {
		return nil
	}
	denial := lb.Denial(err)
	if denial == nil {
		return nil
	}
	return &deniedError{m, denial}
}

// denialIn returns the deniedError that err wraps, or nil.
func denialIn(err error) *deniedError {
	var d *deniedError
	errors.As(err, &d)
	return d
}

// accepted reports to the balancer that m has accepted a connection. may is as for denialOf.
func (s *service) accepted(m *lb.Member, may bool) {
	if may {
		m.Accepted()
	} else {
		m.Connected()
	}
}

// denied records that an endpoint has denied the connection of a client.
func (s *service) denied(client netip.AddrPort, d *deniedError) {
	d.endpoint.Denied(d.why)
	s.unserved(client, d)
}

// isUnanswered reports whether a connection, to an endpoint that may deny and has sent nothing, has ended without a
// reason. why and cause say how it has ended. Envoy ends a connection so if an intention denies it, but it also does if
// it cannot reach its own service.
func isUnanswered(why endReason, cause error) bool {
	switch why {
	case serverClosed:
		return true
	case serverFailed:
		return cause == errTruncated || errors.Is(cause, syscall.ECONNRESET) || errors.Is(cause, syscall.EPIPE)
	}
	return false
}
