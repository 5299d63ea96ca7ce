package lb

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// lookup looks host up by package net, until ctx ends. It returns when the sockets for that are closed: package net
// leaves the sockets of a lookup that was given up open until a name server has had its time, which is seconds.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	base := net.DefaultResolver
	s := &lookupSockets{ctx: ctx, dial: base.Dial, closed: make(chan struct{})}
	if s.dial == nil {
		s.dial = new(net.Dialer).DialContext
	}
	defer s.closeAll()
	r := net.Resolver{PreferGo: base.PreferGo, StrictErrors: base.StrictErrors, Dial: s.dialServer}
	return r.LookupNetIP(ctx, "ip", host)
}

// lookupSockets are those of one lookup.
type lookupSockets struct {
	ctx  context.Context // of the lookup
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex    // guards the following
	count  int           // of those that are open
	ended  bool          // no more are to be opened
	closed chan struct{} // closed when none is open and none will be
}

// dialServer is what package net opens sockets to name servers by.
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
	context.AfterFunc(s.ctx, func() { _ = conn.Close() }) // it may be closed already
	// Package net speaks to a net.PacketConn as to a UDP socket, and to all else as to a TCP socket.
	if p, ok := c.(net.PacketConn); ok {
		return &lookupPacketSocket{conn, p}, nil
	}
	return conn, nil
}

// socketClosed is told of each socket that is closed, or could not be opened.
func (s *lookupSockets) socketClosed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count--; s.count == 0 && s.ended {
		close(s.closed)
	}
}

// closeAll waits until no socket is open, and lets no more be opened.
func (s *lookupSockets) closeAll() {
	s.mu.Lock()
	s.ended = true
	none := s.count == 0
	s.mu.Unlock()
	if !none {
		<-s.closed
	}
}

// A lookupSocket is one that tells when it is closed.
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

// A lookupPacketSocket is a socket of datagrams.
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
