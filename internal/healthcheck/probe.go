package healthcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/lictor-proxy/lictor/internal/deadline"
	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
)

// An answerError is an answer which says that the endpoint is unfit.
type answerError struct{ text string }

// Error implements error.
func (e *answerError) Error() string { return e.text }

// isAnswer reports whether err means that the endpoint answered. A nil err means so.
func isAnswer(err error) bool {
	var answer *answerError
	return err == nil || errors.As(err, &answer)
}

// isOurs reports whether err has a local cause, such as a lack of resources on this host, and says nothing about the
// endpoint.
func isOurs(err error) bool {
	_, ours := lb.CauseOf(err)
	return ours || errors.As(err, new(*filesError))
}

// probe checks an endpoint once. probe returns nil if the endpoint is fit, and an answerError if the endpoint answered
// that it is not. Any other error means that there was no answer.
func (c *Checker) probe(ctx context.Context, e lb.Endpoint, check Check) error {
	ctx, cancel := deadline.WithTimeout(ctx, check.Timeout)
	defer cancel()
	if check.Port != 0 {
		e = withPort(e, check.Port)
	}
	target, err := url.ParseRequestURI(check.Path)
	if err != nil {
		return err
	}
	target.Scheme, target.Host = "http", e.Address()
	if e.Path != "" {
		target.Host = "localhost"
	}
	var secure *tls.Config
	if check.HTTPS {
		target.Scheme = "https"
		if secure, err = c.tlsConfig(&check, e); err != nil {
			return err
		}
	}
	asked := "GET " + target.String()
	if e.Path != "" {
		asked += " at " + e.Address()
	}
	request := (&http.Request{Method: http.MethodGet, URL: target,
		Header: http.Header{"User-Agent": {"lictor"}}}).WithContext(ctx)
	transport := &http.Transport{
		DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, TLSClientConfig: secure,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := c.resolver.Dial(ctx, &net.Dialer{}, lb.TCP, e, 0, nil)
			if err == nil && check.Header != proxyproto.None && check.Port == 0 {
				lb.SendProbeHeader(conn, check.Header)
			}
			return conn, err
		},
	}
	answer, err := transport.RoundTrip(request) // RoundTrip follows no redirect
	if err != nil {
		return fmt.Errorf("%s: no answer: %w", asked, err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return &answerError{asked + ": status " + strconv.Itoa(answer.StatusCode)}
	}
	return nil
}

// withPort returns where the check of e goes if it has a port of its own: to that port of e's host. For a Unix socket,
// that is this host.
func withPort(e lb.Endpoint, port uint16) lb.Endpoint {
	if e.Path != "" {
		return lb.Endpoint{ID: e.ID, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	}
	e.Addr = netip.AddrPortFrom(e.Addr.Addr(), port)
	return e
}
