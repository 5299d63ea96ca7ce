package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/hashicorp/go-multierror"
	"github.com/lictor-proxy/lictor/lb"
)

// maxDials is how many endpoints are tried for one client.
const maxDials = 3

// dial connects to the next endpoint of s that answers. It tries up to maxDials different ones, each for the service's connect timeout.
// The error tells all that was tried. The caller says when the endpoint is Done.
func dial(ctx context.Context, s *service, src netip.AddrPort) (*net.TCPConn, *lb.Member, error) {
	var tried lb.Tried
	var errs *multierror.Error
	for tried.Len() < maxDials {
		endpoint, err := s.next(src, tried)
		if err != nil {
			if errs != nil && errors.Is(err, lb.ErrMissingEndpoints) {
				break // there are some, and all were tried: what they said is the reason
			}
			return nil, nil, err
		}
		conn, err := dialEndpoint(ctx, s, endpoint)
		if err == nil {
			return conn, endpoint, nil
		}
		if ctx.Err() != nil {
			endpoint.Done()
			return nil, nil, ctx.Err()
		}
		s.dialFailed(endpoint, err)
		endpoint.Done()
		errs = multierror.Append(errs, err)
		tried.Add(endpoint.ID)
	}
	errs.ErrorFormat = oneLine
	return nil, nil, errs
}

func dialEndpoint(ctx context.Context, s *service, e *lb.Member) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: s.spec.Load().connectTimeout(), KeepAliveConfig: keepAlive}
	c, err := d.DialContext(ctx, "tcp", e.Address())
	if err != nil {
		return nil, err
	}
	urgentInline(c.(*net.TCPConn))
	return c.(*net.TCPConn), nil
}

func oneLine(errs []error) string {
	s := ""
	for i, err := range errs {
		if i > 0 {
			s += "; "
		}
		s += err.Error()
	}
	return fmt.Sprintf("none of %d endpoints answered: %s", len(errs), s)
}
