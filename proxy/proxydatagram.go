package proxy

import (
	"net/netip"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// This file has what both engines share of the PROXY headers of UDP. A header is a part of a datagram: it comes in front
// of the client's own bytes, and is not counted with them.

// headerUse says which datagrams of a service have PROXY headers. The zero value is none.
type headerUse struct {
	sent  proxyproto.Version // in datagrams to the endpoints; V2 or None
	first bool               // only the first datagram of a session with an endpoint has the header
}

// headerUse returns the use of headers of a UDP service.
func (s *Service) headerUse() headerUse {
	if s.Protocol != UDP {
		return headerUse{}
	}
	// One-way sessions share their sockets, so an endpoint cannot tell to which session a datagram belongs.
	return headerUse{sent: s.SendProxy, first: s.SendProxy != proxyproto.None && s.SendProxyFirst && !s.isOneWay()}
}

// sessionHeaders are the PROXY headers of a UDP session. A session of a service without headers has nil.
type sessionHeaders struct {
	use   headerUse // as it was when the session began
	front []byte    // header that the next datagram to the endpoint must have; empty if it must have none
}

// newSessionHeaders returns the headers of a new session. u is not zero.
func newSessionHeaders(u headerUse, h *hop) *sessionHeaders {
	x := &sessionHeaders{use: u}
	if u.sent != proxyproto.None {
		x.front = appendProxyHeader(nil, u.sent, h)
	}
	return x
}

// usedBy returns how the session with headers x uses headers. x may be nil.
func (x *sessionHeaders) usedBy() headerUse {
	if x == nil {
		return headerUse{}
	}
	return x.use
}

// next returns the header of the next datagram to the endpoint, or nil if there is none. x may be nil.
func (x *sessionHeaders) next() []byte {
	if x == nil {
		return nil
	}
	return x.front
}

// delivered records that a datagram with a header has been sent.
func (x *sessionHeaders) delivered() {
	if x.use.first {
		x.front = nil
	}
}

// handed returns the headers for another process. x may be nil.
func (x *sessionHeaders) handed() *SessionHeaders {
	if x == nil {
		return nil
	}
	return &SessionHeaders{Sent: x.use.sent, First: x.use.first, Front: x.front}
}

// adopted returns the headers that another process has handed over. h may be nil.
func (h *SessionHeaders) adopted() *sessionHeaders {
	if h == nil {
		return nil
	}
	return &sessionHeaders{use: headerUse{sent: h.Sent, first: h.First}, front: h.Front}
}

// listenedAt returns the address that a client has used. local is the datagram's local address, if that is known.
func listenedAt(listener netip.AddrPort, local netip.Addr) netip.AddrPort {
	if local.IsValid() {
		return netip.AddrPortFrom(local.Unmap(), listener.Port())
	}
	return listener
}
