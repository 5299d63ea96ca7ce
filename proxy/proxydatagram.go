package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"unique"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/proxy/internal/batch"
)

// This file has what both engines share of the PROXY headers of UDP. A header is a part of a datagram: it comes in
// front of the client's own bytes, and is not counted with them.

// headerUse says which datagrams of a service have PROXY headers. The zero value is none.
type headerUse struct {
	heard bool               // in datagrams of clients, see Service.AcceptProxy
	sent  proxyproto.Version // in datagrams to the endpoints; V2 or None
	first bool               // only the first datagram of a session with an endpoint has the header
}

// headerUse returns the use of headers of a UDP service.
func (s *Service) headerUse() headerUse {
	if s.Protocol != UDP {
		return headerUse{}
	}
	// One-way sessions share their sockets, so an endpoint cannot tell to which session a datagram belongs.
	return headerUse{heard: s.AcceptProxy != nil, sent: s.SendProxy,
		first: s.SendProxy != proxyproto.None && s.SendProxyFirst && !s.isOneWay()}
}

// sessionHeaders are the PROXY headers of a UDP session. A session of a service without headers has nil.
type sessionHeaders struct {
	use   headerUse         // as it was when the session began
	heard proxyproto.Header // header of the datagram that began the session; zero if it had none
	front []byte            // header that the next datagram to the endpoint must have; empty if it must have none
}

// newSessionHeaders returns the headers of a new session. u is not zero. h says what Lictor knows of the client itself,
// and heard is the header of the client's datagram, or nil.
func newSessionHeaders(u headerUse, h hop, heard *proxyproto.Header) *sessionHeaders {
	x := &sessionHeaders{use: u}
	if heard != nil {
		x.heard = *heard
		x.heard.TLVs = nil
	}
	if u.sent == proxyproto.None {
		return x
	}
	if heard != nil {
		x.heard.TLVs = slices.Clone(heard.TLVs) // they are a part of a buffer
		h.tlvs = heard.TLVs
	}
	if x.heard.Src.IsValid() {
		h.client, h.server, h.udp = x.heard.Src, x.heard.Dst, x.heard.Datagram
	}
	x.front = appendProxyHeader(nil, u.sent, &h)
	return x
}

// client returns the client of a session whose datagrams come from peer. x may be nil.
func (x *sessionHeaders) client(peer netip.AddrPort) netip.AddrPort {
	if x != nil {
		return clientBy(&x.heard, peer)
	}
	return peer
}

// clientBy returns the client of a datagram from peer. heard is its header, or nil. A header may name no client.
func clientBy(heard *proxyproto.Header, peer netip.AddrPort) netip.AddrPort {
	if heard != nil && heard.Src.IsValid() {
		return heard.Src
	}
	return peer
}

// again returns the header of the datagram that began the session, or nil if it had none. x may be nil.
func (x *sessionHeaders) again() *proxyproto.Header {
	if x == nil || !x.use.heard {
		return nil
	}
	return &x.heard
}

// introducedBy returns the part of a session's key for the header of a datagram, which may be nil.
func introducedBy(heard *proxyproto.Header) (key batch.Introduced) {
	if heard != nil {
		key = unique.Make(batch.Introduction{Client: heard.Src, Server: heard.Dst})
	}
	return key
}

// hearDatagram parses the header at the beginning of a datagram from peer, and returns its size in bytes. If ok is
// false, the datagram must be dropped, and that has been recorded.
func (s *service) hearDatagram(h *proxyproto.Header, peer netip.AddrPort, b []byte) (size int, ok bool) {
	trusted := s.mayConnect(peer.Addr())
	var err error
	if trusted {
		*h, size, err = proxyproto.ParseDatagram(b)
	}
	if trusted && err == nil {
		return size, true
	}
	s.at(0).refused[RefusedProxyHeader].Add(1)
	if s.unwanted.due() { // asked first, so that nothing is allocated for a line that is not logged
		if !trusted {
			err = &strangerError{peer.Addr()}
		} else {
			err = fmt.Errorf("%w: %w", errProxyHeader, err)
		}
		s.log.Warn("datagram dropped", s.unwanted.withHeld("client", peer, "error", err)...)
	}
	return 0, false
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
	return &SessionHeaders{
		Sent: x.use.sent, First: x.use.first, Front: x.front,
		Heard: x.use.heard, Client: x.heard.Src, Server: x.heard.Dst, Datagram: x.heard.Datagram, TLVs: x.heard.TLVs,
	}
}

// adopted returns the headers that another process has handed over. h may be nil.
func (h *SessionHeaders) adopted() *sessionHeaders {
	if h == nil {
		return nil
	}
	return &sessionHeaders{
		use: headerUse{heard: h.Heard, sent: h.Sent, first: h.First}, front: h.Front,
		heard: proxyproto.Header{Src: h.Client, Dst: h.Server, Datagram: h.Datagram, TLVs: h.TLVs},
	}
}

// listenedAt returns the address that a client has used. local is the datagram's local address, if that is known.
func listenedAt(listener netip.AddrPort, local netip.Addr) netip.AddrPort {
	if local.IsValid() {
		return netip.AddrPortFrom(local.Unmap(), listener.Port())
	}
	return listener
}
