package proxy

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// list implements engine. The number of a place is the number that the socket's epoll events carry.
func (e *loopEngine) list(from place, q *ConnectionQuery, page *[]Connection) (number int, more bool) {
	l := e.loops[from.shard]
	l.do(func() {
		end := min(from.number+placesAtOnce, len(l.sockets))
		for number = from.number; number < end && len(*page) < q.Limit; number++ {
			switch s := l.sockets[number].(type) {
			case *loopPair:
				if s.state != pairClosed && q.wants(s.s, s.endpoint) {
					*page = append(*page, s.connection())
				}
			case *loopSession:
				if s.state != over && q.wants(s.s, s.endpoint) {
					*page = append(*page, s.connection())
				}
			}
		}
		more = number < len(l.sockets)
	})
	return number, more
}

// connection describes the pair. The pair stores little for this purpose, because the kernel knows the rest.
func (p *loopPair) connection() Connection {
	now := p.loop.now
	c := Connection{
		Service: p.s.name(), Protocol: TCP, Client: p.src, Listener: p.socket.addr, State: ConnectionOpen,
		Age: now - p.began, Idle: now - p.last, Up: p.flows[clientSide].moved,
		Down: p.flows[serverSide].moved, TLS: p.clientTLS(),
	}
	if p.endpoint != nil {
		c.Endpoint, c.From = p.endpoint.Endpoint, nameOf(p.fd[serverSide])
	}
	switch {
	case p.state == lingering:
		c.State = ConnectionClosing
	case p.state == connecting && p.waiter != nil:
		c.State = ConnectionWaiting
	case p.state == greeting, p.state == guessing, p.state == securing:
		c.State = ConnectionGreeting
	case p.state == connecting, p.state == asking:
		c.State = ConnectionConnecting
	case p.ends > 0:
		c.State = ConnectionHalfClosed
	}
	return c
}

// connection describes the session.
func (x *loopSession) connection() Connection {
	h := x.shard
	c := Connection{
		Service: x.s.name(), Protocol: UDP, Client: x.client(), Listener: h.socket.Addr(),
		Endpoint: x.endpoint.Endpoint, From: nameOf(x.fd), State: ConnectionOpen,
		Age: h.loop.now - x.began, Idle: h.loop.now - x.used,
		Up: x.bytes[clientSide], Down: x.bytes[serverSide], DatagramsUp: x.sent, DatagramsDown: x.answers,
	}
	if x.state == resolving {
		c.State = ConnectionConnecting
	}
	return c
}

// nameOf returns a socket's own address. nameOf returns an invalid address if the socket has none.
func nameOf(fd int32) netip.AddrPort {
	if fd < 0 {
		return netip.AddrPort{}
	}
	sa, err := sys.SocketName(unix.SYS_GETSOCKNAME, fd)
	if err != 0 {
		return netip.AddrPort{}
	}
	return clientOf(&sa)
}
