// Package proxy opens the listeners of services and forwards what arrives there, TCP connections and UDP datagrams,
// to the endpoints that a load balancer names.
//
//	balancer := lb.NewRoundRobin()
//	balancer.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: endpoints}})
//	p, err := proxy.New(proxy.Options{LoadBalancer: balancer, Logger: logger})
//	...
//	err = p.Apply([]proxy.Service{{Name: "web", Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9000")}}})
//	...
//	err = p.Shutdown(ctx) // let connections finish until ctx ends
//
// A TCP connection is dialled off the accept loop; a dial that fails goes to the next endpoint, and a client that
// cannot be served gets a reset at once. Both directions of a connection end independently (half-close), a reset is
// passed on as a reset, and bytes that were read are delivered. A UDP client has a session: a socket of its own,
// connected to one endpoint, so that answers and ICMP errors find their way back. The session ends when it is idle
// or has all its answers, and moves to another endpoint when its endpoint refuses or leaves.
//
// Where a service says so, connections end when their endpoint has left for good ([OnLeave]), or when they have
// grown old ([Service.MaxAge]).
//
// Descriptors are budgeted, and each service has a floor and a ceiling. Where they run out, new TCP clients wait in the
// kernel's queue, and the UDP sessions idle longest of all services make room. Nothing is allocated or logged per
// datagram.
//
// What it does not do: TLS, PROXY protocol, anything that looks into the bytes.
package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ErrClosed is returned by ProxyLoop after Close or Shutdown, and by Apply after Shutdown or Close of the Proxier.
var ErrClosed = errors.New("proxy closed")

// Protocol is what a listener speaks.
type Protocol int

// The protocols.
const (
	TCP Protocol = iota
	UDP
)

// String is "tcp" or "udp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol(%d)", int(p))
}

// A Service says where clients come in and how they are served. Its Name is what the load balancer knows it by.
type Service struct {
	Name     string
	Protocol Protocol

	// Listen holds the addresses that clients dial. Port 0 lets the kernel choose a port; Proxier.Listeners tells
	// which. The address :: takes IPv4 clients too.
	Listen []netip.AddrPort

	// ConnectTimeout bounds each dial, resolution of host names included. Zero means 1 s.
	ConnectTimeout time.Duration

	// IdleTimeout ends a TCP connection or UDP session over which nothing moves in either direction, not even from
	// the kernel's buffers to a peer that reads slowly. Zero means an hour for TCP and a minute for UDP; negative
	// means never, for TCP only.
	IdleTimeout time.Duration

	// HalfCloseTimeout takes the place of a longer IdleTimeout once one direction of a TCP connection has ended.
	// Zero means 5 minutes, negative means that IdleTimeout goes on to hold.
	HalfCloseTimeout time.Duration

	// OnLeave says what becomes of TCP connections whose endpoint leaves. UDP sessions move to another one at their
	// next datagram.
	OnLeave OnLeave

	// MaxAge ends TCP connections that are so old, give or take a tenth: in a moment of quiet, or by a reset when
	// MaxAgeGrace is over. Such a moment is when nothing has moved for a second, the endpoint was the last to say
	// something or nobody has, neither side has ended, and all that was sent has arrived. Of a connection that is
	// open when MaxAge changes, age counts from then. Zero MaxAge means never; zero MaxAgeGrace means 30 s, negative
	// none.
	MaxAge, MaxAgeGrace time.Duration

	// MaxPerClient bounds the TCP connections or UDP sessions that each client has, by its address as lb.ClientOf says.
	// A TCP client that comes with one more gets a reset, and a datagram that would begin one more session is dropped.
	// Those that began while there was no limit do not count. Zero and negative mean any number.
	MaxPerClient int

	// MaxSessions bounds the UDP sessions of each listener; beyond it the one idle longest ends. Zero means 65,536.
	// Descriptors may bound them sooner.
	MaxSessions int

	// Responses is how many datagrams an endpoint answers each of a client's datagrams with. A UDP session ends at
	// once when that many have come for all that its client has sent: 1 suits DNS. Zero means that nobody knows, and
	// sessions end by IdleTimeout. Negative means none: what comes back is thrown away, and on the loops the
	// sessions of a listener share a socket for each endpoint.
	Responses int

	// Requests is after how many datagrams of a client another endpoint is picked for its next ones; the session
	// that there was goes on to take answers. 1 spreads every datagram, which suits syslog. Zero and negative mean
	// never.
	Requests int
}

func (s *Service) equal(o *Service) bool {
	return s.Name == o.Name && s.Protocol == o.Protocol && slices.Equal(s.Listen, o.Listen) &&
		s.ConnectTimeout == o.ConnectTimeout &&
		s.IdleTimeout == o.IdleTimeout && s.HalfCloseTimeout == o.HalfCloseTimeout && s.MaxSessions == o.MaxSessions &&
		s.MaxPerClient == o.MaxPerClient &&
		s.Responses == o.Responses && s.Requests == o.Requests && s.OnLeave == o.OnLeave && s.MaxAge == o.MaxAge &&
		s.MaxAgeGrace == o.MaxAgeGrace
}

func (s *Service) connectTimeout() time.Duration {
	if s.ConnectTimeout == 0 {
		return time.Second
	}
	return s.ConnectTimeout
}

// idleTimeout is zero for never.
func (s *Service) idleTimeout() time.Duration {
	switch {
	case s.IdleTimeout == 0 && s.Protocol == TCP:
		return time.Hour
	case s.IdleTimeout == 0, s.IdleTimeout < 0 && s.Protocol == UDP:
		return time.Minute
	}
	return max(s.IdleTimeout, 0)
}

// halfCloseTimeout is zero for never.
func (s *Service) halfCloseTimeout() time.Duration {
	half := s.HalfCloseTimeout
	if half == 0 {
		half = 5 * time.Minute
	}
	idle := s.idleTimeout()
	if half < 0 || idle > 0 && idle < half {
		return idle
	}
	return half
}

func (s *Service) maxAgeGrace() time.Duration {
	if s.MaxAgeGrace == 0 {
		return 30 * time.Second
	}
	return max(s.MaxAgeGrace, 0)
}

func (s *Service) maxSessions() int {
	if s.MaxSessions <= 0 {
		return 65536
	}
	return s.MaxSessions
}
