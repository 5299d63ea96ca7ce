package lb

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/deadline"
)

// Dial connects to e. If e has a host name, it tries the addresses in turn; if none answers, it looks the name up again
// and tries those that are new. The lookup and the dials of an answer each get up to timeout; zero means until ctx
// ends. admit, which may be nil, returns those of the addresses that may be dialled, or an error. The error is that of
// the last address tried.
func (r *Resolver) Dial(
	ctx context.Context, d *net.Dialer, network Network, e Endpoint, timeout time.Duration,
	admit func([]netip.Addr) ([]netip.Addr, error),
) (conn net.Conn, err error) {
	if e.Host == "" {
		ctx, cancel := within(ctx, timeout)
		defer cancel()
		return deadline.Dial(ctx, *d, network.String(), e.Address())
	}
	var tried []netip.Addr
	for range 2 {
		addrs, lookupErr := r.admitted(ctx, e, timeout, admit)
		if lookupErr != nil && err == nil {
			return nil, lookupErr
		}
		addrs = slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return slices.Contains(tried, a) })
		if len(addrs) == 0 {
			break
		}
		if conn, err = r.dialAny(ctx, d, network, e, addrs, timeout); err == nil || ctx.Err() != nil {
			return conn, err
		}
		tried = append(tried, addrs...)
	}
	return nil, err
}

// admitted looks the name of e up, and returns those of its addresses that may be dialled.
func (r *Resolver) admitted(
	ctx context.Context, e Endpoint, timeout time.Duration, admit func([]netip.Addr) ([]netip.Addr, error),
) ([]netip.Addr, error) {
	ctx, cancel := within(ctx, timeout)
	defer cancel()
	addrs, err := r.Lookup(ctx, e.Host)
	if err != nil || admit == nil {
		return addrs, err
	}
	return admit(addrs)
}

// dialAny connects to the first of addrs that accepts a connection. Each gets an equal part of the time that is left.
func (r *Resolver) dialAny(
	ctx context.Context, d *net.Dialer, network Network, e Endpoint, addrs []netip.Addr, timeout time.Duration,
) (conn net.Conn, err error) {
	ctx, cancel := within(ctx, timeout)
	defer cancel()
	err = ErrMissingEndpoints
	for i, addr := range r.Order(network, e, addrs) {
		at := netip.AddrPortFrom(addr, e.Addr.Port())
		if conn, err = dialPart(ctx, d, network, at, len(addrs)-i); err == nil {
			if network == TCP { // over UDP, it sends nothing
				r.Reached(network, at)
			}
			return conn, nil
		}
		if _, local := CauseOf(err); !local {
			r.Failed(network, e, addr)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// dialPart connects to addr, with one part in of of the time until ctx ends.
func dialPart(
	ctx context.Context, d *net.Dialer, network Network, addr netip.AddrPort, of int,
) (net.Conn, error) {
	if end, ok := deadline.End(ctx); ok && of > 1 {
		var cancel context.CancelFunc
		ctx, cancel = deadline.WithTimeout(ctx, time.Until(end)/time.Duration(of))
		defer cancel()
	}
	return deadline.Dial(ctx, *d, network.String(), addr.String())
}

// within returns ctx with a timeout; zero means none.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return deadline.WithTimeout(ctx, timeout)
}
