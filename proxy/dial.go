package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/lictor-proxy/lictor/lb"
)

// maxDials is how many endpoints are tried for one client.
const maxDials = 3

// A dialer finds an endpoint for one client.
type dialer struct {
	client     streamConn
	service    *service
	resolver   *lb.Resolver
	handshakes handshakes
	src        netip.AddrPort
	hop        *hop // for the PROXY header that goes ahead of a TLS handshake
	tried      lb.Tried
	errs       *multierror.Error
	waiting    atomic.Bool // the client waits for a free slot; may be read concurrently
	untaken    []byte      // bytes of the client that no tried endpoint has taken; see portablePair
	request    []byte      // what an endpoint gets first and must accept; nil if there is nothing, see tlsRequest
}

// dial connects to the next endpoint that answers. dial tries up to maxDials endpoints, each for at most the service's
// connect timeout. The error is a clientError or has the errors of all attempts. The caller must call Done on the
// endpoint.
func (d *dialer) dial(ctx context.Context) (streamConn, *lb.Member, error) {
	for d.tried.Len() < maxDials {
		endpoint, err := d.service.pick(d.src, d.tried)
		waited := err == lb.ErrFull
		if waited {
			endpoint, err = d.wait(ctx)
		}
		if err != nil {
			return nil, nil, d.none(err, waited)
		}
		began := time.Now()
		conn, err := d.dialEndpoint(ctx, endpoint)
		if err == nil {
			d.service.accepted(endpoint, mayDeny(conn))
			endpoint.Dialed(time.Since(began))
			return conn, endpoint, nil
		}
		if ctx.Err() != nil {
			endpoint.Done()
			return nil, nil, ctx.Err()
		}
		if denied := denialIn(err); denied != nil {
			endpoint.Denied(denied.why)
			endpoint.Done()
			return nil, nil, denied
		}
		d.missed(endpoint, err)
		if connGone(d.client) {
			return nil, nil, errClientReset
		}
	}
	return nil, nil, whyNone(d.errs, lb.ErrMissingEndpoints)
}

// errClientReset ends the search for an endpoint when the kernel considers the client's connection closed.
var errClientReset = &clientError{syscall.ECONNRESET}

// none returns why the client gets no endpoint. err is the error of pick or wait. waited means that the client was
// queued. A queued client may have reset its connection, which wait cannot see if the client had sent data.
func (d *dialer) none(err error, waited bool) error {
	if why, _ := endOf(err); waited && why.isUnserved() && connGone(d.client) {
		return errClientReset
	}
	return whyNone(d.errs, err)
}

// whyNone returns why a client gets no endpoint. tried holds the errors of all attempts; err says why there is no
// further endpoint.
func whyNone(tried *multierror.Error, err error) error {
	if tried == nil {
		return err
	}
	tried.ErrorFormat = oneLine
	if errors.Is(err, lb.ErrMissingEndpoints) {
		return tried // the service has endpoints, so their errors are the reason
	}
	return fmt.Errorf("%w: %w", err, tried)
}

// wait waits until an endpoint has a free slot, or until the client goes.
func (d *dialer) wait(ctx context.Context) (*lb.Member, error) {
	type answer struct {
		m   *lb.Member
		err error
	}
	told := make(chan answer, 1)
	w, err := d.service.wait(d.src, d.tried, func(m *lb.Member, err error) { told <- answer{m, err} })
	if err != nil {
		return nil, err
	}
	d.waiting.Store(true)
	defer d.waiting.Store(false)
	var gone <-chan *clientError
	if len(d.untaken) == 0 { // a client that has asked for something may end its side and still want the answer
		watch := watchClient(d.client)
		defer watch.stop()
		gone = watch.gone
	}
	select {
	case a := <-told:
		if a.m != nil && ctx.Err() != nil { // the slot was freed by a cut connection
			a.m.Done()
			return nil, ctx.Err()
		}
		return a.m, a.err
	case err = <-gone:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if !w.Cancel() {
		if a := <-told; a.m != nil {
			a.m.Done()
		}
	}
	return nil, err
}

// A clientWatch detects that a client goes while nothing is read from it.
type clientWatch struct {
	client streamConn
	gone   chan *clientError // receives one element when the client goes
	ended  chan struct{}     // closed when the watch has ended
}

func watchClient(c streamConn) *clientWatch {
	w := &clientWatch{client: c, gone: make(chan *clientError, 1), ended: make(chan struct{})}
	go w.look()
	return w
}

func (w *clientWatch) look() {
	defer close(w.ended)
	var gone *clientError
	if s, is := w.client.(*secureConn); is {
		gone = s.deserted()
	} else {
		gone = connDeserted(w.client)
	}
	if gone != nil {
		w.gone <- gone
	}
}

// stop ends the watch and clears the read deadline.
func (w *clientWatch) stop() {
	_ = w.client.SetReadDeadline(time.Unix(1, 0))
	<-w.ended
	_ = w.client.SetReadDeadline(time.Time{})
}

// missed records that the endpoint did not serve the client, and calls Done on it.
func (d *dialer) missed(endpoint *lb.Member, err error) {
	d.service.dialFailed(endpoint, err)
	endpoint.Done()
	d.errs = multierror.Append(d.errs, err)
	d.tried.Add(endpoint.ID)
}

// dialEndpoint connects to an endpoint within the service's connect timeout. If the endpoint has a host name, the
// timeout covers all its addresses together. The lookup of the name has as much time again. So has a TLS
// handshake.
func (d *dialer) dialEndpoint(ctx context.Context, e *lb.Member) (streamConn, error) {
	spec := d.service.spec.Load()
	if e.Host == "" {
		if err := spec.unfit(e, d.src.Addr(), e.Addr.Addr()); err != nil {
			return nil, err
		}
	}
	admit := func(addrs []netip.Addr) ([]netip.Addr, error) {
		return d.service.admitted(spec, e, d.src.Addr(), addrs)
	}
	c, err := d.resolver.Dial(ctx, spec.tcpDialer(d.src.Addr()), lb.TCP, e.Endpoint, spec.connectTimeout(), admit)
	if err != nil {
		return nil, spec.dialError(err)
	}
	s := c.(streamConn)
	urgentInline(s)
	if d.request != nil {
		if err = askTLS(ctx, s, d.request, spec.connectTimeout()); err != nil {
			abort(s)
			return nil, dialError(e, err)
		}
	}
	if spec.EndpointTLS != nil {
		return d.secure(ctx, spec, e, s)
	}
	return s, nil
}

// secure shakes hands with endpoint m of spec over c. After an error, c is closed.
func (d *dialer) secure(ctx context.Context, spec *Service, m *lb.Member, c streamConn) (streamConn, error) {
	began, denies := time.Now(), spec.EndpointTLS.Denies
	config, err := spec.EndpointTLS.Config(m.Endpoint)
	if err == nil {
		w := &wire{streamConn: c, bare: c, dialed: true}
		if d.request == nil && !spec.EndpointTLS.HeaderInside { // otherwise the endpoint has got the header, or will
			w.header = d.service.proxyHeader(d.hop)
		}
		conn := tls.Client(w, config)
		var s *secureConn
		if s, err = d.handshakes.shake(ctx, w, conn, began.Add(spec.connectTimeout())); err == nil {
			d.service.at(0).handshakes.count(conn, time.Since(began), nil)
			s.denies, s.inside = denies, spec.EndpointTLS.HeaderInside
			return s, nil
		}
	}
	if ctx.Err() == nil {
		d.service.at(0).handshakes.count(nil, 0, err)
	}
	_ = c.Close() // not by a reset, which could overtake what TLS has told the endpoint
	if denied := denialOf(m, denies, err); denied != nil {
		return nil, denied
	}
	return nil, endpointHandshakeError(m, err)
}

// dialError returns the error of a dial to m. lb.CauseOf and package net need to see what kind of socket was dialled.
func dialError(m *lb.Member, err error) error {
	if m.Path != "" {
		return &net.OpError{Op: "dial", Net: "unix", Addr: &net.UnixAddr{Name: m.Path, Net: "unix"}, Err: err}
	}
	return fmt.Errorf("dial tcp %s: %w", m.Address(), err)
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
