package proxy

import (
	"net"
	"sync/atomic"
	"time"
)

// A tcpClient is a client of a tcpSocket, from its arrival on.
type tcpClient struct {
	socket *tcpSocket
	dialer *dialer
	began  time.Time

	greeting bool     // the client has not sent its PROXY header or ClientHello yet, or its TLS handshake is not over
	tls      *TLSPeer // what the handshake with the client has shown; nil without TLS

	pair atomic.Pointer[portablePair] // nil while the client has no connected endpoint
}

// connection implements listed.
func (t *tcpClient) connection(q *ConnectionQuery) (Connection, bool) {
	s, p := t.dialer.service, t.pair.Load()
	c := Connection{Service: s.name(), Protocol: TCP, Client: t.dialer.src, Listener: t.socket.addr,
		State: ConnectionConnecting, Age: time.Since(t.began), TLS: t.tls}
	c.Idle = c.Age
	if t.dialer.waiting.Load() {
		c.State = ConnectionWaiting
	}
	if t.greeting {
		c.State = ConnectionGreeting
	}
	if p == nil {
		return c, q.wants(s, nil)
	}
	c.Endpoint, c.From = p.endpoint.Endpoint, addrOf(p.server.LocalAddr())
	c.Up, c.Down = p.up.Load(), p.down.Load()
	c.Idle = time.Since(p.began) - time.Duration(p.last.Load())
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closing || p.ends == 2:
		c.State = ConnectionClosing
	case p.ends > 0:
		c.State = ConnectionHalfClosed
	default:
		c.State = ConnectionOpen
	}
	return c, q.wants(s, p.endpoint)
}

// connection implements listed.
func (x *session) connection(q *ConnectionQuery) (Connection, bool) {
	now := x.socket.now()
	c := Connection{
		Service: x.service.name(), Protocol: UDP, Client: x.client(), Listener: x.socket.Addr(),
		Endpoint: x.endpoint.Endpoint, State: ConnectionOpen,
		Age: now - x.began, Idle: now - time.Duration(x.last.Load()),
		Up: x.bytesUp.Load(), Down: x.bytesDown.Load(), DatagramsUp: x.datagramsUp.Load(),
		DatagramsDown: x.datagramsDown.Load(),
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.io.conn == nil {
		c.State = ConnectionConnecting
	} else {
		c.From = x.io.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	return c, !x.gone && q.wants(x.service, x.endpoint)
}
