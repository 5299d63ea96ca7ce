package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"syscall"

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

// An admission is asked by package net about the addresses of a host name, by several goroutines at once.
type admission struct {
	service  *service
	endpoint *lb.Member
	dialled  atomic.Bool // one of them at least
}

// control implements net.Dialer's ControlContext.
func (a *admission) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if err := a.service.barred(a.endpoint, addr); err != nil {
		return err
	}
	a.dialled.Store(true)
	return nil
}

// cause returns why a dial has failed, of which package net says what was wrong with the first address: that one may
// have been barred, and others dialled.
func (a *admission) cause(err error) error {
	var barred *barredError
	switch {
	case !errors.As(err, &barred):
		return err
	case a.dialled.Load():
		return fmt.Errorf("no other address has answered, and not dialled was the first: %w", barred.error)
	}
	return barred
}
