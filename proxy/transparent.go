package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file decides for both engines from which address an endpoint is dialled, see Service.Transparent.

// TryTransparent returns why this process cannot serve services that are transparent, or nil if it can. The error wraps
// errors.ErrUnsupported on other systems than Linux, and EPERM without CAP_NET_RAW and CAP_NET_ADMIN.
func TryTransparent() error {
	err := sys.TryTransparent()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("%w: only Linux can use the addresses of clients; remove transparent, or use send_proxy", err)
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: lictor may not use the addresses of clients; give it CAP_NET_RAW or CAP_NET_ADMIN, in "+
			"systemd with AmbientCapabilities= and CapabilityBoundingSet=, or remove transparent", err)
	}
	return err
}

// mayBeTransparent returns an error if one of the services is transparent and this process cannot serve it.
func mayBeTransparent(services []Service) error {
	i := slices.IndexFunc(services, func(s Service) bool { return s.Transparent })
	if i < 0 {
		return nil
	}
	if err := TryTransparent(); err != nil {
		return fmt.Errorf("service %q: transparent: %w", services[i].Name, err)
	}
	return nil
}

// source returns the address from which endpoints are dialled for the client at src. The zero Addr means that the
// kernel chooses.
func (s *Service) source(src netip.Addr) netip.Addr {
	if !s.Transparent {
		return netip.Addr{}
	}
	return src.Unmap()
}

// unfit returns why the endpoint m, at the address to, cannot be dialled for the client at src, or nil if it can be.
func (s *Service) unfit(m *lb.Member, src, to netip.Addr) error {
	if !s.Transparent { // a bare service pays no more than this
		return nil
	}
	return s.sourceError(m, src, to)
}

// sourceError is unfit for a transparent service.
func (s *Service) sourceError(m *lb.Member, src, to netip.Addr) error {
	if why := sourceTrouble(src.Unmap(), to.Unmap()); why != "" {
		return &barredError{fmt.Errorf("dial %s %s: transparent: %s (client %s)", s.Protocol, m.Address(), why, src)}
	}
	return nil
}

// sourceTrouble returns why nothing at the address to can be dialled from the address src of a client. The result is
// empty if no reason is known.
func sourceTrouble(src, to netip.Addr) string {
	switch {
	case !src.IsValid(), src.IsUnspecified(), src.IsMulticast():
		return "that is no address of a client"
	case !to.IsValid():
		return "a Unix socket cannot tell its server an address"
	case src.Is4() != to.Is4():
		return "the client and the endpoint must both have IPv4 addresses, or both IPv6 addresses"
	case src.IsLoopback() && !to.IsLoopback():
		return "a client at a loopback address can reach only endpoints at loopback addresses"
	case to.IsLoopback() && !src.IsLoopback():
		return "an endpoint at a loopback address can serve only clients at loopback addresses"
	case src.Zone() != "" && src.Zone() != to.Zone():
		return "a client at a link-local address can reach only endpoints of its link"
	case src == to && !isOwn(src):
		return "a host drops packets that seem to come from itself, and the client is on the endpoint's host"
	}
	return ""
}

// isOwn reports whether addr is an address of this host.
func isOwn(addr netip.Addr) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// tcpDialer returns the dialer of package net for the TCP client at src.
func (s *Service) tcpDialer(src netip.Addr) *net.Dialer {
	d := &net.Dialer{KeepAliveConfig: keepAlive}
	if from := s.source(src); from.IsValid() {
		d.LocalAddr, d.Control = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), sys.Transparent
	}
	return d
}

// dialUDP returns a socket of package net that is connected to the address to, for the client at src.
func (s *Service) dialUDP(src netip.Addr, to netip.AddrPort) (*net.UDPConn, error) {
	from := s.source(src)
	if !from.IsValid() {
		return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	}
	d := net.Dialer{Control: sys.Transparent}
	c, err := d.DialUDP(context.Background(), "udp", netip.AddrPortFrom(from, 0), to)
	return c, s.dialError(err)
}

// dialError returns err, the error of a dial in package net. If the kernel has no route to the endpoint for packets
// from the client's address, dialError makes err a barredError.
func (s *Service) dialError(err error) error {
	if s.Transparent && errors.Is(err, syscall.EINVAL) {
		return &barredError{err}
	}
	return err
}
