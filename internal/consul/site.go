package consul

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/internal/hostport"
)

// A site is one place at which Consul's HTTP API may answer: an address of the Options, and for a host name one of the
// name's IP addresses. A Client is at one site at a time. An index belongs to the site that sent it.
type site struct {
	agent hostport.Agent
	base  url.URL

	// pin is the IP address of a host name that this site dials. It is nil until the first connection, and always for
	// an address without a host name.
	pin atomic.Pointer[netip.Addr]

	transport http.RoundTripper
	gate      gate                      // limits how many queries look for a connection at once
	heard     atomic.Pointer[time.Time] // when the site last answered a request; nil if never

	// single is set if the agent speaks HTTP/1 over HTTPS, for example behind a reverse proxy. A connection then
	// carries one query.
	single atomic.Bool

	// left ends when the client moves to another site, by a call of leave.
	left  context.Context
	leave context.CancelFunc

	// The client sets the following fields before it moves to the site. They never change afterwards.
	number uint64    // number of moves before; zero for the first site
	since  time.Time // when the client moved here
	from   string    // the site before; empty for the first site
	why    string    // why the client moved here; empty for the first site
}

// A lookup returns the IP addresses of a host name.
type lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// lookUp is the lookup of the system's resolver.
func lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i := range all {
		all[i] = all[i].Unmap()
	}
	return all, err
}

// isNamed reports whether the address has a host name.
func isNamed(a hostport.Agent) bool {
	_, err := netip.ParseAddr(a.URL.Hostname())
	return a.Socket == "" && err != nil
}

// newSite returns a site for the address a. If a has a host name, pin is the IP address to dial, or nil for any.
func (c *Client) newSite(a hostport.Agent, pin *netip.Addr) *site {
	s := &site{agent: a, base: a.URL, transport: c.options.Transport}
	s.left, s.leave = context.WithCancel(context.Background())
	s.pin.Store(pin)
	if s.transport == nil {
		s.transport = newTransport(a, c.files, c.dialTo(s))
	}
	if s.base.Scheme == "https" { // usually HTTP/2
		s.gate = make(gate, gateWidth)
	}
	return s
}

// String returns the site's address without secrets, with the IP address of a host name if it is known.
func (s *site) String() string {
	if pin := s.pin.Load(); pin != nil {
		return fmt.Sprintf("%s (%s)", s.agent, pin)
	}
	return s.agent.String()
}

// is reports whether s and other are the same place.
func (s *site) is(other *site) bool {
	mine, others := s.pin.Load(), other.pin.Load()
	return s.agent == other.agent && (mine == nil && others == nil || mine != nil && others != nil && *mine == *others)
}

// while returns a context for a request to s that also ends when the client moves to another site, with the cause
// ErrMoved. The returned function releases its resources.
func (s *site) while(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.left, func() { cancel(ErrMoved) })
	return ctx, func() { stop(); cancel(nil) }
}

// hasHeard notes that the site answers.
func (s *site) hasHeard() {
	now := time.Now()
	s.heard.Store(&now)
}

// closeIdle closes the connections that carry no request.
func (s *site) closeIdle() {
	if t, ok := s.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// A goneError says that a host name no longer has the IP address that the client used.
type goneError struct {
	host string
	addr netip.Addr
}

func (e *goneError) Error() string {
	return fmt.Sprintf("%s is no longer an address of %s", e.addr, e.host)
}

// dialTimeout limits an attempt to connect to an agent.
const dialTimeout = 5 * time.Second

// dialTo returns the function that opens the connections of s.
//
// If the address has a host name, all connections of a site lead to one IP address of that name. Otherwise a connection
// that replaces a broken one could lead to another agent, which an index of the first one must not be sent to.
func (c *Client) dialTo(s *site) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	if s.agent.Socket != "" {
		return func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", s.agent.Socket)
		}
	}
	if !isNamed(s.agent) {
		return dialer.DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host != s.agent.URL.Hostname() { // an HTTP proxy leads to the agent
			return dialer.DialContext(ctx, network, addr)
		}
		if s.pin.Load() == nil {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil || s.pinTo(conn.RemoteAddr()) {
				return conn, err
			}
			_ = conn.Close() // another connection was first, to another address
		}
		pin := *s.pin.Load()
		if all, err := c.lookup(ctx, host); err == nil && !slices.Contains(all, pin) {
			return nil, &goneError{host, pin}
		}
		return dialer.DialContext(ctx, network, net.JoinHostPort(pin.String(), port))
	}
}

// pinTo makes addr the IP address of s, if s has none. pinTo reports whether s is pinned to addr.
func (s *site) pinTo(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	return s.pin.CompareAndSwap(nil, &ip) || *s.pin.Load() == ip
}
