// Package proxy opens the listeners of services. It forwards TCP connections and UDP datagrams from these listeners to
// the endpoints that a load balancer picks.
//
//	balancer := lb.NewRoundRobin()
//	balancer.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: endpoints}})
//	p, err := proxy.New(proxy.Options{LoadBalancer: balancer, Logger: logger})
//	...
//	err = p.Apply([]proxy.Service{{Name: "web", Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9000")}}})
//	...
//	err = p.Shutdown(ctx) // let connections finish until ctx ends
//
// Endpoints are dialled outside the accept loop. If a dial fails, the next endpoint is tried. A client that cannot be
// served gets a reset at once. Both directions of a TCP connection end independently (half-close). A reset is passed on
// as a reset. Bytes that were read are delivered.
//
// Each UDP client has a session. A session has a socket of its own, connected to one endpoint, so that answers and ICMP
// errors reach the right client. A session ends when it is idle or has all its answers. If its endpoint refuses a
// datagram or leaves the service, the client gets a session with another endpoint.
//
// A service can end connections whose endpoint has left for good ([OnLeave]), and connections that are too old
// ([Service.MaxAge]).
//
// File descriptors are budgeted, and each service has a floor and a ceiling. When they run out, new TCP clients wait in
// the kernel's queue, and the UDP sessions that have been idle longest end. Nothing is allocated or logged for each
// datagram.
//
// An end of a connection may have something to say before the first byte, such as the header of the PROXY protocol
// ([AcceptProxy]). An end may also be encrypted ([AcceptTLS], [EndpointTLS]). Services may share a listener; the name
// in a TLS client's first message then chooses one of them ([Service.SNI]). Apart from that, package proxy never looks
// into the bytes that it forwards.
package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/unixsocket"
)

// ErrClosed is returned by ProxyLoop after Close or Shutdown, and by Apply after Shutdown or Close of the Proxier.
var ErrClosed = errors.New("proxy closed")

// Protocol is the transport protocol of a listener.
type Protocol int

// The protocols.
const (
	TCP Protocol = iota
	UDP
)

// String returns "tcp" or "udp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol(%d)", int(p))
}

// A Service says on which addresses a service listens and how its clients are served. Name is the name under which the
// load balancer knows the service.
type Service struct {
	Name     string
	Protocol Protocol

	// Listen holds the addresses that clients dial. With port 0 the kernel chooses a port, which Proxier.Listeners
	// returns. The address :: accepts IPv4 clients too.
	Listen []netip.AddrPort

	// Sockets holds the Unix sockets that clients dial, besides Listen. A UDP service has none. Clients of a Unix
	// socket have no address: Allow, Deny and MaxPerClient do not apply to them. For stickiness and hashing, all of
	// them are one client.
	Sockets []SocketFile

	// SNI holds the server names whose clients get this service at a listener that it shares with other services. A
	// name is in lower case, has no dot at the end, and may begin with "*." for exactly one label. Services share a
	// listener if they have the same address or path in Listen or Sockets. Then each of them but one needs SNI, their
	// names must be distinct, and AcceptProxy and the access to the socket must be equal. The service without SNI gets
	// the clients that fit no name. If all have SNI, such a client gets a reset. See package clienthello for what is
	// read of a client; nothing is decrypted. UDP services have no SNI.
	SNI []string

	// ConnectTimeout bounds each dial of an endpoint. The lookup of the endpoint's host name may take as long again,
	// and so may its TLS handshake. A zero ConnectTimeout means 1 s.
	ConnectTimeout time.Duration

	// IdleTimeout ends a TCP connection or UDP session when no bytes have moved in either direction for so long. Bytes
	// that move from the kernel's buffers to a slow reader count as movement. A zero IdleTimeout means an hour for TCP
	// and a minute for UDP. A negative IdleTimeout means never for TCP, and a minute for UDP.
	IdleTimeout time.Duration

	// HalfCloseTimeout replaces a longer IdleTimeout once one direction of a TCP connection has ended. A zero
	// HalfCloseTimeout means 5 minutes. If it is negative, IdleTimeout still applies.
	HalfCloseTimeout time.Duration

	// OnLeave says how long TCP connections may go on after their endpoint has left. UDP clients move to another
	// endpoint at their next datagram.
	OnLeave OnLeave

	// MaxAge ends TCP connections of that age, give or take a tenth. A connection ends at its first quiet moment, or by
	// a reset when MaxAgeGrace has passed too. A connection is quiet if no bytes have moved for a second and all bytes
	// have arrived. In addition, neither side may have ended, and the client must not have been the last to send. When
	// MaxAge changes, the age of open connections counts from the change. A MaxAge of zero means never. A MaxAgeGrace
	// of zero means 30 s, and a negative one means no grace.
	MaxAge, MaxAgeGrace time.Duration

	// MaxPerClient limits the TCP connections or UDP sessions of each client. lb.ClientOf says which addresses are one
	// client. At the limit, a further TCP connection gets a reset, and a datagram that would begin a further session is
	// dropped. Connections and sessions that began while there was no limit do not count. If MaxPerClient is zero or
	// negative, there is no limit.
	MaxPerClient int

	// MaxPerIdentity limits the TCP connections of each identity that clients have proved in their TLS handshake. See
	// TLSPeer.Identity. At the limit, a further connection gets a reset after its handshake. Clients without an
	// identity have no such limit. Connections that began while there was no limit do not count. If MaxPerIdentity is
	// zero or negative, there is no limit.
	MaxPerIdentity int

	// Allow and Deny say which clients may come, by address. If Allow is empty, all clients may come that are not in
	// Deny; otherwise only those in Allow that are not in Deny. An address counts without its zone, and an IPv4-mapped
	// one as IPv4; the prefixes must have neither. A TCP client that may not come gets a reset before any endpoint is
	// dialled, and a datagram of such a client is dropped. A change ends no TCP connection. A change ends a UDP session
	// at the next datagram of its client.
	Allow, Deny []netip.Prefix

	// AcceptProxy, unless it is nil, makes the clients of all listeners send a PROXY header: TCP clients in front of
	// their first byte, and UDP clients in front of each datagram. It is never guessed whether a client sends one.
	AcceptProxy *AcceptProxy

	// AcceptTLS, unless it is nil, makes the clients of all listeners speak TLS, behind the PROXY header if there is
	// one. Lictor decrypts what they send, and encrypts what they get. Only TCP services may have it.
	AcceptTLS *AcceptTLS

	// EndpointTLS, unless it is nil, makes Lictor speak TLS with the endpoints. A PROXY header for an endpoint leaves
	// in front of the handshake. Only TCP services may have it.
	EndpointTLS *EndpointTLS

	// SendProxy is the version of the PROXY header that endpoints get in front of the client's bytes. UDP endpoints get
	// it in front of each datagram, and only with version 2, because version 1 does not know UDP.
	SendProxy proxyproto.Version

	// SendProxyFirst leaves the header out of all datagrams of a UDP session but the first. SendProxyFirst does nothing
	// if Responses is negative, because sessions then share a socket.
	SendProxyFirst bool

	// Transparent makes the address of each connection and UDP session to an endpoint that of the client, with another
	// port. The network must route the answers to this host, and this host must deliver them to local sockets.
	// Transparent works on Linux only, and Apply fails if the process has neither CAP_NET_ADMIN nor CAP_NET_RAW. A
	// client and its endpoint must have addresses of one family; other endpoints are passed over without being marked
	// as failed. A change applies to new connections and sessions.
	Transparent bool

	// MaxSessions limits the UDP sessions of each listener. At the limit, a new session ends the one that has been idle
	// longest. A MaxSessions of zero means 65,536. A lack of descriptors may limit sessions further.
	MaxSessions int

	// Responses is how many datagrams an endpoint sends in answer to each datagram of a client. A UDP session ends as
	// soon as all its answers have come; 1 suits DNS. A Responses of zero means that the number is unknown, so
	// IdleTimeout ends sessions. A negative Responses means that no answers are expected, and datagrams from the
	// endpoint are discarded. The event loops then use one socket for each endpoint, which all sessions of a listener
	// share; with Transparent, each session has its own.
	Responses int

	// Requests is how many datagrams of a client go to one endpoint before another endpoint is picked. The earlier
	// session still receives answers. 1 spreads every datagram, which suits syslog. If Requests is zero or negative, a
	// client keeps its endpoint.
	Requests int
}

// A SocketFile says where a Unix socket is, and who may connect to it. When only the access changes, the socket stays.
type SocketFile struct {
	Path string // absolute
	unixsocket.Access
}

func (s *Service) equal(o *Service) bool {
	return s.Name == o.Name && s.Protocol == o.Protocol && slices.Equal(s.Listen, o.Listen) &&
		slices.Equal(s.Sockets, o.Sockets) && slices.Equal(s.SNI, o.SNI) &&
		s.ConnectTimeout == o.ConnectTimeout &&
		s.IdleTimeout == o.IdleTimeout && s.HalfCloseTimeout == o.HalfCloseTimeout && s.MaxSessions == o.MaxSessions &&
		s.MaxPerClient == o.MaxPerClient && s.MaxPerIdentity == o.MaxPerIdentity &&
		slices.Equal(s.Allow, o.Allow) && slices.Equal(s.Deny, o.Deny) &&
		s.AcceptProxy.equal(o.AcceptProxy) && s.SendProxy == o.SendProxy && s.SendProxyFirst == o.SendProxyFirst &&
		s.Transparent == o.Transparent && s.AcceptTLS.equal(o.AcceptTLS) && s.EndpointTLS.equal(o.EndpointTLS) &&
		s.Responses == o.Responses && s.Requests == o.Requests && s.OnLeave == o.OnLeave && s.MaxAge == o.MaxAge &&
		s.MaxAgeGrace == o.MaxAgeGrace
}

func (s *Service) connectTimeout() time.Duration {
	if s.ConnectTimeout == 0 {
		return time.Second
	}
	return s.ConnectTimeout
}

// idleTimeout returns IdleTimeout with its default applied. A result of zero means never.
func (s *Service) idleTimeout() time.Duration {
	switch {
	case s.IdleTimeout == 0 && s.Protocol == TCP:
		return time.Hour
	case s.IdleTimeout == 0, s.IdleTimeout < 0 && s.Protocol == UDP:
		return time.Minute
	}
	return max(s.IdleTimeout, 0)
}

// halfCloseTimeout returns the idle timeout of a half-closed connection. A result of zero means never.
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
