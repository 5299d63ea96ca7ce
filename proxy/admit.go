package proxy

import (
	"fmt"
	"net/netip"

	"github.com/lictor-proxy/lictor/lb"
)

// A barredError is why an address must not be dialled that the host name of an endpoint has come to.
type barredError struct{ error }

func (e *barredError) Unwrap() error { return e.error }

// barred returns why addr, which the host name of an endpoint has come to, must not be dialled; nil if it may be.
func (s *service) barred(m *lb.Member, addr netip.AddrPort) error {
	if s.admit == nil {
		return nil
	}
	spec := s.spec.Load()
	if err := s.admit(spec.Name, spec.Protocol, m.Endpoint, addr); err != nil {
		return &barredError{fmt.Errorf("dial %s %s: %w", spec.Protocol, m.Address(), err)}
	}
	return nil
}

// admitted returns those of the addresses of an endpoint's host name that may be dialled, or why none may.
func (s *service) admitted(m *lb.Member, addrs []netip.Addr) (some []netip.Addr, err error) {
	for _, a := range addrs {
		if why := s.barred(m, netip.AddrPortFrom(a.Unmap(), m.Addr.Port())); why == nil {
			some = append(some, a)
		} else if err == nil {
			err = why
		}
	}
	if len(some) > 0 {
		return some, nil
	}
	return nil, err
}
