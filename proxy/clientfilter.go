package proxy

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/lictor-proxy/lictor/lb"
)

// A clientFilter says which clients of a service may come, see Service.Allow. A nil clientFilter lets all clients come.
// A clientFilter is immutable; a service gets another one when its specification is replaced.
type clientFilter struct {
	allow, deny []netip.Prefix
	headers     headerUse // of UDP sessions; a session ends when it is another than that of the session
}

func newClientFilter(spec *Service) *clientFilter {
	headers := spec.headerUse()
	if len(spec.Allow)+len(spec.Deny) == 0 && headers == (headerUse{}) {
		return nil
	}
	return &clientFilter{allow: slices.Clone(spec.Allow), deny: slices.Clone(spec.Deny), headers: headers}
}

// admits reports whether the client at src may come. A client of a Unix socket has no address, and may come: the mode
// of the socket has decided that. admits compares src with one prefix after the other, a few nanoseconds each.
func (f *clientFilter) admits(src netip.Addr) bool {
	if f == nil || !src.IsValid() {
		return true
	}
	src = src.Unmap().WithZone("") // a prefix contains no address with a zone
	within := func(p netip.Prefix) bool { return p.Contains(src) }
	return !slices.ContainsFunc(f.deny, within) && (len(f.allow) == 0 || slices.ContainsFunc(f.allow, within))
}

// errNotAllowed refuses a client that may not come.
var errNotAllowed = errors.New("the client's address is in deny, or not in allow")

// newPeerFilter returns the filter of the peers that may connect: the proxies that AcceptProxy names, or else the
// clients.
func newPeerFilter(spec *Service, clients *clientFilter) *clientFilter {
	a := spec.AcceptProxy
	switch {
	case a == nil:
		return clients
	case len(a.From) == 0:
		return &clientFilter{deny: []netip.Prefix{
			netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}}
	}
	return &clientFilter{allow: slices.Clone(a.From)}
}

// setFilters makes the filters of spec those of the service.
func (s *service) setFilters(spec *Service) {
	clients := newClientFilter(spec)
	s.filter.Store(clients)
	s.peers.Store(newPeerFilter(spec, clients))
}

// mayCome reports whether the client at src may use the service.
func (s *service) mayCome(src netip.Addr) bool { return s.filter.Load().admits(src) }

// mayConnect reports whether a TCP connection from peer may begin, or with AcceptProxy whether a datagram of peer may
// be read. The peer is the client, or with AcceptProxy the proxy, whose header then names the client.
func (s *service) mayConnect(peer netip.Addr) bool { return s.peers.Load().admits(peer) }

// peerError returns why mayConnect has refused peer.
func (s *service) peerError(peer netip.Addr) error {
	if s.spec.Load().AcceptProxy != nil {
		return &strangerError{peer}
	}
	return errNotAllowed
}

// turnedAway records that a TCP connection was reset as soon as it was accepted, because its peer may not connect.
func (s *service) turnedAway(peer netip.AddrPort, listener lb.Addr) {
	err := s.peerError(peer.Addr())
	s.unserved(peer, err)
	if s.observed() {
		s.ended(&report{client: peer, listener: listener}, unservedFor(refusalOf(err)), nil)
	}
}

// A clearance is the filter that last admitted the client of a session. With a clearance, the filter is asked once for
// each session and reload, and not for each datagram. The zero value is a client that no filter has admitted yet, or
// that came while there was none.
type clearance struct{ by *clientFilter }

// begin returns how a new session of the client at src, which has just been admitted, uses headers. heard says that the
// client's datagram had one. begin remembers the filter that says so, because otherwise a session with headers would
// outlive a filter that is replaced by none.
func (c *clearance) begin(s *service, src netip.Addr, heard bool) headerUse {
	f := s.filter.Load() // may be newer than the filter that has admitted the client, or wanted the header
	use := f.headersOf()
	use.heard = heard
	if use != (headerUse{}) && use == f.headersOf() && f.admits(src) {
		c.by = f
	}
	return use
}

// isDue reports whether s has another filter than the one that admitted the client.
func (c *clearance) isDue(s *service) bool { return s.filter.Load() != c.by }

// renew returns why the session of the client at src must end, or notEnded if it goes on. headers are those of the
// session.
func (c *clearance) renew(s *service, src netip.Addr, headers headerUse) endReason {
	f := s.filter.Load()
	switch {
	case !f.admits(src):
		return endForbidden
	case f.headersOf() != headers:
		return endReplaced
	}
	c.by = f
	return notEnded
}

func (f *clientFilter) headersOf() headerUse {
	if f == nil {
		return headerUse{}
	}
	return f.headers
}
