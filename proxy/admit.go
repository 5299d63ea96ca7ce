package proxy

import (
	"fmt"
	"net/netip"

	"github.com/lictor-proxy/lictor/lb"
)

// A barredError says why an address of an endpoint must not be dialled for a client. It says nothing about the
// endpoint.
type barredError struct{ error }

func (e *barredError) Unwrap() error { return e.error }

// barred returns why addr must not be dialled for the client at src, or nil if it may be. addr is an address of the
// host name of m.
func (s *service) barred(spec *Service, m *lb.Member, src netip.Addr, addr netip.AddrPort) error {
	if err := spec.unfit(m, src, addr.Addr()); err != nil || s.admit == nil {
		return err
	}
	if err := s.admit(spec.Name, spec.Protocol, m.Endpoint, addr); err != nil {
		return &barredError{fmt.Errorf("dial %s %s: %w", spec.Protocol, m.Address(), err)}
	}
	return nil
}

// admitted returns the addresses of an endpoint's host name that may be dialled for the client at src. If there are
// none, it returns the reason for the first address.
func (s *service) admitted(
	spec *Service, m *lb.Member, src netip.Addr, addrs []netip.Addr,
) (some []netip.Addr, err error) {
	for _, a := range addrs {
		if why := s.barred(spec, m, src, netip.AddrPortFrom(a.Unmap(), m.Addr.Port())); why == nil {
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
