package proxy

import (
	"net"
	"net/netip"
	"syscall"
)

// A streamConn is a connection of the portable engine: a *net.TCPConn or a *net.UnixConn. A streamConn is never a type
// that wraps one of them, because splice(2) needs the bare socket.
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

// keepOpen turns keep-alive on. Accepted sockets do not get it from an inherited listener.
func keepOpen(c streamConn) {
	if tcp, is := c.(*net.TCPConn); is {
		_ = tcp.SetKeepAliveConfig(keepAlive)
	}
}

// abort closes c so that its peer does not see a proper end. For TCP, that is a reset. A Unix socket has no resets: its
// peer gets an error only if c has bytes that nobody has read, and otherwise an end.
func abort(c streamConn) {
	if tcp, is := c.(*net.TCPConn); is {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
