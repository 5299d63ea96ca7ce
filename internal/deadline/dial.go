package deadline

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
)

// Dial connects as d.DialContext does, with a context from WithTimeout. It keeps a connection that the peer accepted in
// time, even if the process looks at it only after that time. A context dials one connection at a time. D must have no
// Control and no ControlContext.
func Dial(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
	var socket atomic.Pointer[syscall.RawConn]
	d.Control = func(_, _ string, c syscall.RawConn) error {
		socket.Store(&c)
		return nil
	}
	arrived := func() bool {
		c := socket.Load()
		return c != nil && isSettled(*c)
	}
	expect(ctx, &arrived)
	defer expect(ctx, nil)
	return d.DialContext(ctx, network, address)
}
