package proxy

import (
	"net"
	"net/netip"
	"syscall"
)

// A streamConn is a connection of the portable engine: a *net.TCPConn or a *net.UnixConn, or a *secureConn over one of
// them. No other type wraps a socket, because splice(2) needs the bare one.
type streamConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// addrOf returns an address of a streamConn. An IPv4 address is never in the form of an IPv6 address. addrOf returns an
// invalid address for a Unix socket.
func addrOf(a net.Addr) netip.AddrPort {
	tcp, is := a.(*net.TCPAddr)
	if !is {
		return netip.AddrPort{}
	}
	addr := tcp.AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// bareOf returns the socket of c.
func bareOf(c streamConn) streamConn {
	if s, is := c.(*secureConn); is {
		return s.wire.bare
	}
	return c
}

// isSecure reports whether TLS is spoken over c.
func isSecure(c streamConn) bool {
	_, is := c.(*secureConn)
	return is
}

// hasHeader reports whether the dial of c, a connection with an endpoint, has sent the PROXY header of a service that
// sends one.
func hasHeader(c streamConn) bool {
	s, is := c.(*secureConn)
	return is && !s.inside
}

// mayDeny reports whether c leads to an endpoint with EndpointTLS.Denies.
func mayDeny(c streamConn) bool {
	s, is := c.(*secureConn)
	return is && s.denies
}

// keepOpen turns keep-alive on. Accepted sockets do not get it from an inherited listener.
func keepOpen(c streamConn) {
	if tcp, is := c.(*net.TCPConn); is {
		_ = tcp.SetKeepAliveConfig(keepAlive)
	}
}

// abort closes c so that its peer does not see a proper end. For TCP, that is a reset. A Unix socket has no resets: its
// peer gets an error only if c has bytes that nobody has read, and otherwise an end. TLS says no close_notify.
func abort(c streamConn) {
	c = bareOf(c)
	if tcp, is := c.(*net.TCPConn); is {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
