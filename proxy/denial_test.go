package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
)

// mayDenyTLS is endpointTLS for endpoints that may deny. They get a certificate.
func mayDenyTLS(c *tls.Config) *EndpointTLS {
	c.Certificates = []tls.Certificate{testCert()}
	e := endpointTLS(c)
	e.Denies = true
	return e
}

// denier returns a server that denies its clients as long as denies holds, and otherwise echoes. It counts its clients.
// With header, they send a PROXY header first. With reset, it resets the connections that it has denied.
func denier(t *testing.T, version uint16, header, reset bool, denies func() bool,
	clients *atomic.Int64) netip.AddrPort {
	config := serverConfig(version)
	config.ClientAuth = tls.RequireAnyClientCert
	config.VerifyConnection = func(tls.ConnectionState) error {
		if clients.Add(1); denies() {
			return errors.New("not you")
		}
		return nil
	}
	return tcpServer(t, func(c testConn) {
		if header && readHeader(c) != nil {
			return
		}
		s := tls.Server(c, config)
		if s.Handshake() == nil {
			_, _ = io.Copy(s, s)
		} else if reset {
			c.SetLinger(0)
		}
	})
}

// askDenied sends n bytes as a client that is to be reset.
func askDenied(t *testing.T, at netip.AddrPort, n int) {
	t.Helper()
	c, err := dialAs(at.String())
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err = c.Write(make([]byte, n)); err == nil {
			_, err = io.Copy(io.Discard, c)
		}
	}
	wantReset(t, err)
}

func always() bool { return true }

// endpointsNow returns what the balancer knows of the service's endpoints.
func (h *house) endpointsNow() []lb.EndpointSnapshot { return h.balancer.Snapshot()[0].Endpoints }

// A denied client is reset and counted, and no other endpoint is tried. The endpoint is not to blame.
func TestDenied(t *testing.T) {
	for _, tt := range []struct {
		name   string
		send   int
		header proxyproto.Version
		inside bool // the header is inside TLS
		reset  bool // the endpoint resets the connection behind its alert
		times  int
	}{
		{"silent client", 0, proxyproto.None, false, false, 1},
		{"client that asks", 5, proxyproto.None, false, false, 1},
		{"client with a PROXY header", 5, proxyproto.V2, false, false, 1},
		{"client with a PROXY header inside TLS", 5, proxyproto.V2, true, false, 1},
		{"client that sends much", 1 << 20, proxyproto.None, false, false, 10},
		{"endpoint that resets", 5, proxyproto.None, false, true, 20}, // a write may fail before the alert is read
		{"endpoint that resets, with a header", 5, proxyproto.V2, true, true, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachVersion(t, func(t *testing.T, h *house, version uint16) {
				told := records(h)
				var clients atomic.Int64
				deny := func() netip.AddrPort {
					return denier(t, version, tt.header != proxyproto.None && !tt.inside, tt.reset, always, &clients)
				}
				s := Service{EndpointTLS: mayDenyTLS(clientConfig(version)), SendProxy: tt.header}
				s.EndpointTLS.HeaderInside = tt.inside
				at := h.serve(s, deny(), deny(), deny())
				var up int64
				for range tt.times {
					askDenied(t, at, tt.send)
					r := <-told
					up += r.Up
					if r.Reason != ReasonDenied || r.Refused != "denied" || r.Endpoint.ID == "" || r.Down != 0 ||
						!errors.Is(r.Err, lb.ErrDenied) || !strings.Contains(r.Err.Error(), "bad certificate") {
						t.Errorf("got %+v", r)
					}
				}
				n := int64(tt.times)
				eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
				c := h.stats()
				if c.RefusedBy[RefusedDenied] != n || c.Refused != n || c.DialsFailed != 0 || c.Retries != 0 ||
					c.BytesUp != up || clients.Load() != n {
					t.Errorf("got %+v and %d clients at the endpoints, want %d denied", c, clients.Load(), n)
				}
				for _, e := range h.endpointsNow() {
					n -= e.Denied.Connections
					if e.State != lb.StateIn || e.Failures != 0 || e.Unanswered.Connections != 0 {
						t.Errorf("got %+v, want no failure", e)
					}
				}
				if n != 0 {
					t.Errorf("%d denials are missing at the endpoints", n)
				}
			})
		})
	}
}

// An endpoint that allows the connections again serves them, and the balancer forgets that it has denied some.
func TestDeniedAndAllowedAgain(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		var denies atomic.Bool
		var clients atomic.Int64
		changes := make(chan lb.DenialChange, 10)
		h.balancer.NotifyDenials(func(c lb.DenialChange) { changes <- c })
		at := h.serve(Service{EndpointTLS: mayDenyTLS(clientConfig(version))},
			denier(t, version, false, false, denies.Load, &clients))
		for range 2 {
			denies.Store(true)
			for range 3 {
				askDenied(t, at, 0)
			}
			if c := <-changes; !c.Denied || c.Service != "s" || !strings.Contains(c.Why, "bad certificate") {
				t.Errorf("got %+v, want a denial", c)
			}
			eventually(t, equals("denied", func() int64 { return h.endpointsNow()[0].Denied.Connections }, 3))
			denies.Store(false)
			exchange(t, dialTCP(t, at), "hello")
			if c := <-changes; c.Denied {
				t.Errorf("got %+v, want the end of it", c)
			}
			if e := h.endpointsNow()[0]; e.Denied.Connections != 0 {
				t.Errorf("got %+v after an answer", e)
			}
		}
		if len(changes) > 0 {
			t.Errorf("got %d more changes", len(changes))
		}
	})
}

// What an endpoint that may deny does otherwise is no denial. If it ends the connection without a reason and before it
// has sent anything, that is counted by itself. A reset counts against the endpoint as without TLS.
func TestNotDenied(t *testing.T) {
	for _, tt := range []struct {
		name       string
		end        func(c *tlsConn)
		reason     string
		unanswered int64
		failures   int64
	}{
		{"close_notify", func(c *tlsConn) { c.Close() }, ReasonEndpointClosed, 1, 0},
		{"FIN", func(c *tlsConn) { c.bare.CloseWrite(); io.Copy(io.Discard, c.bare) }, ReasonEndpointFailed, 1, 0},
		{"RST", func(c *tlsConn) { c.SetLinger(0) }, ReasonEndpointFailed, 1, 1},
		{"close_notify after an answer", func(c *tlsConn) { io.WriteString(c, "y") }, ReasonEndpointClosed, 0, 0},
		{"RST after an answer", func(c *tlsConn) {
			io.WriteString(c, "y")
			c.Read(make([]byte, 1)) // until the answer has arrived
			c.SetLinger(0)
		}, ReasonEndpointFailed, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachVersion(t, func(t *testing.T, h *house, version uint16) {
				told := records(h)
				at := h.serve(Service{EndpointTLS: mayDenyTLS(clientConfig(version))},
					tlsServer(t, serverConfig(version), func(c testConn) {
						io.ReadFull(c, make([]byte, 1)) // later the client gets another endpoint
						tt.end(c.(*tlsConn))
					}))
				c := dialTCP(t, at)
				io.WriteString(c, "x")
				if n, _ := c.Read(make([]byte, 1)); n > 0 {
					io.WriteString(c, "x")
					io.Copy(io.Discard, c)
				}
				c.Close()
				if r := <-told; r.Reason != tt.reason || r.Refused != "" {
					t.Errorf("got %+v, want %s", r, tt.reason)
				}
				eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
				e := h.endpointsNow()[0]
				if e.Unanswered.Connections != tt.unanswered || e.Failures != tt.failures || e.Denied.Connections != 0 {
					t.Errorf("got %+v, want %d unanswered and %d failures", e, tt.unanswered, tt.failures)
				}
			})
		})
	}
}

// An alert that is not about Lictor's certificate is a failure, and so is any alert if the service does not expect
// denials.
func TestOtherAlertsAreFailures(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		var clients atomic.Int64
		s := Service{EndpointTLS: mayDenyTLS(clientConfig(version))}
		s.EndpointTLS.Denies = false
		at := h.serve(s, denier(t, version, false, false, always, &clients))
		askDenied(t, at, 0)
		eventually(t, equals("failed", func() int64 { return h.stats().DialsFailedBy[lb.Handshake] }, 1))

		s.EndpointTLS = mayDenyTLS(clientConfig(version))
		h.serve(s, tlsServer(t, serverConfig(version), func(c testConn) {
			io.ReadFull(c, make([]byte, 1))
			c.(*tlsConn).bare.Write(append([]byte{23, 3, 3, 0, 100}, make([]byte, 100)...))
			io.Copy(io.Discard, c) // the alert of Lictor
		}))
		c := dialTCP(t, at)
		io.WriteString(c, "x")
		_, err := io.Copy(io.Discard, c)
		wantReset(t, err)
		eventually(t, equals("failed", func() int64 { return h.stats().DialsFailedBy[lb.Handshake] }, 2))
		if n := h.stats().RefusedBy[RefusedDenied]; n != 0 {
			t.Errorf("%d were denied", n)
		}
	})
}

// Handshakes with endpoints are counted, and by their reasons if they fail.
func TestHandshakesAreCounted(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		config := clientConfig(version)
		config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		var bad atomic.Pointer[error]
		s := Service{ConnectTimeout: 20 * time.Second, EndpointTLS: &EndpointTLS{
			Config: func(lb.Endpoint) (*tls.Config, error) {
				if err := bad.Load(); err != nil {
					return nil, *err
				}
				return config, nil
			}}}
		at := h.serve(s, tlsServer(t, serverConfig(version), echo))
		for range 3 {
			c := dialTCP(t, at)
			exchange(t, c, "hello")
			c.Close()
		}
		n := h.stats().Handshakes
		if n.Full != 1 || n.Resumed != 2 || n.Time <= 0 || n.FailedBy != (Handshakes{}).FailedBy {
			t.Errorf("got %+v, want one full and two resumed", n)
		}
		stranger := serverConfig(version)
		stranger.Certificates = []tls.Certificate{newAuthority("stranger").issue("lictor.test")}
		notReady := fmt.Errorf("%w: no certificate", lb.ErrNotReady)
		for _, tt := range []struct {
			want   HandshakeFailure
			server netip.AddrPort
			err    *error
		}{
			{HandshakeCertificate, tlsServer(t, stranger, echo), nil},
			{HandshakeEnded, tcpServer(t, func(c testConn) { c.Read(make([]byte, 1)) }), nil},
			{HandshakeOther, tcpServer(t, named("this is no TLS")), nil},
			{HandshakeTimeout, tcpServer(t, func(c testConn) { io.Copy(io.Discard, c) }), nil},
			{HandshakeNotReady, tcpServer(t, echo), &notReady},
			{HandshakeAlert, tlsServer(t, &tls.Config{}, echo), nil},
		} {
			if s.ConnectTimeout = 20 * time.Second; tt.want == HandshakeTimeout {
				s.ConnectTimeout = 50 * time.Millisecond
			}
			bad.Store(tt.err)
			h.serve(s, tt.server)
			if c, err := dialAs(at.String()); err == nil { // otherwise the reset came before that
				io.Copy(io.Discard, c)
				c.Close()
			}
			eventually(t, equals(tt.want.String(), func() int64 { return h.stats().Handshakes.FailedBy[tt.want] }, 1))
		}
		if n := h.stats().Handshakes; n.Full != 1 || n.Resumed != 2 {
			t.Errorf("got %+v, want no more", n)
		}
		s.EndpointTLS = nil
		h.serve(s, tcpServer(t, echo))
		if n := h.stats().Handshakes; n != nil {
			t.Errorf("got %+v of a service without TLS", n)
		}
	})
}
