package deadline

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
)

// Dial connects as d.DialContext does; ctx must come from WithTimeout. If the peer accepted in time, Dial keeps the
// connection, even if the process notices it only after the timeout. A context may dial only one connection at a time.
// The dialer must have no ControlContext.
func Dial(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
	var socket atomic.Pointer[syscall.RawConn]
	control := d.Control
	d.Control = func(network, address string, c syscall.RawConn) error {
		socket.Store(&c)
		if control != nil {
			return control(network, address, c)
		}
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
