package lb

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// lookup looks up host with package net. If ctx ends first, lookup closes the sockets of the lookup, and waits until
// all are closed. Package net alone would keep the sockets open until the name server's timeout, which takes seconds.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	base := net.DefaultResolver
	s := &lookupSockets{ctx: ctx, dial: base.Dial, closed: make(chan struct{})}
	if s.dial == nil {
		s.dial = new(net.Dialer).DialContext
	}
	defer s.wait()
	r := net.Resolver{PreferGo: base.PreferGo, StrictErrors: base.StrictErrors, Dial: s.dialServer}
	return r.LookupNetIP(ctx, "ip", host)
}

// lookupSockets holds the sockets of one lookup.
type lookupSockets struct {
	ctx  context.Context // the context of the lookup
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex    // guards the following
	count  int           // open sockets
	ended  bool          // no more sockets may be opened
	closed chan struct{} // closed when no socket is open and none will be opened
}

// dialServer is the Dial function of a net.Resolver: it opens a socket to a name server.
func (s *lookupSockets) dialServer(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	if s.ended || s.ctx.Err() != nil {
		s.mu.Unlock()
		return nil, context.Canceled
	}
	s.count++
	s.mu.Unlock()
	c, err := s.dial(ctx, network, address)
	if err != nil {
		s.socketClosed()
		return nil, err
	}
	conn := &lookupSocket{Conn: c, closed: sync.OnceFunc(s.socketClosed)}
	context.AfterFunc(s.ctx, func() { _ = conn.Close() }) // fails only if conn is already closed
	// Package net treats a net.PacketConn as a UDP socket, and any other net.Conn as a TCP socket.
	if p, ok := c.(net.PacketConn); ok {
		return &lookupPacketSocket{conn, p}, nil
	}
	return conn, nil
}

// socketClosed counts a socket that was closed, or that could not be opened.
func (s *lookupSockets) socketClosed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count--; s.count == 0 && s.ended {
		close(s.closed)
	}
}

// wait forbids new sockets, and returns when no socket is open.
func (s *lookupSockets) wait() {
	s.mu.Lock()
	s.ended = true
	none := s.count == 0
	s.mu.Unlock()
	if !none {
		<-s.closed
	}
}

// A lookupSocket calls the function closed when the socket is closed.
type lookupSocket struct {
	net.Conn
	closed func()
}

// Close implements net.Conn.
func (c *lookupSocket) Close() error {
	err := c.Conn.Close()
	c.closed()
	return err
}

// A lookupPacketSocket is a lookupSocket for datagrams.
type lookupPacketSocket struct {
	*lookupSocket
	packets net.PacketConn
}

// ReadFrom implements net.PacketConn.
func (c *lookupPacketSocket) ReadFrom(b []byte) (int, net.Addr, error) { return c.packets.ReadFrom(b) }

// WriteTo implements net.PacketConn.
func (c *lookupPacketSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	return c.packets.WriteTo(b, to)
}
