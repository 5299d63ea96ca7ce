package lb

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/deadline"
)

// Dial connects to the endpoint e. If e has a host name, Dial tries the addresses of the host name in turn. If no
// address answers, Dial looks the name up again, and tries the new addresses. Each lookup, and all dials to the
// addresses that it found together, may take up to timeout; a zero timeout means until ctx ends. admit returns the
// addresses that may be dialled, or an error; a nil admit allows all. Dial returns the error of the last address that
// it tried.
func (r *Resolver) Dial(
	ctx context.Context, d *net.Dialer, network Network, e Endpoint, timeout time.Duration,
	admit func([]netip.Addr) ([]netip.Addr, error),
) (conn net.Conn, err error) {
	if e.Host == "" {
		ctx, cancel := within(ctx, timeout)
		defer cancel()
		if e.Path != "" {
			return deadline.Dial(ctx, *d, "unix", e.Path)
		}
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

// admitted looks up the host name of e, and returns the addresses that may be dialled.
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

// dialAny connects to the first of addrs that accepts a connection. Each address gets an equal part of the remaining
// time.
func (r *Resolver) dialAny(
	ctx context.Context, d *net.Dialer, network Network, e Endpoint, addrs []netip.Addr, timeout time.Duration,
) (conn net.Conn, err error) {
	ctx, cancel := within(ctx, timeout)
	defer cancel()
	err = ErrMissingEndpoints
	for i, addr := range r.Order(network, e, addrs) {
		at := netip.AddrPortFrom(addr, e.Addr.Port())
		if conn, err = dialPart(ctx, d, network, at, len(addrs)-i); err == nil {
			if network == TCP { // over UDP, connecting sends nothing
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

// dialPart connects to addr within 1/of of the time until ctx ends.
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

// within returns ctx with a timeout. A zero timeout means none.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return deadline.WithTimeout(ctx, timeout)
}
