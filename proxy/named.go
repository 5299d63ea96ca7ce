package proxy

import (
	"net/netip"

	"github.com/lictor-proxy/lictor/lb"
)

// A namedUse is a UDP session's use of one address of its endpoint's host name. A namedUse is zero if the endpoint has
// no host name.
type namedUse struct {
	addr  *lb.NamedAddr
	moves uint32 // addr's count of moves when the use began
}

// useNamed begins the use of addr.
func useNamed(r *lb.Resolver, addr netip.AddrPort) namedUse {
	a := r.Use(lb.UDP, addr)
	return namedUse{a, a.Moves()}
}

// isOver reports whether the address has failed and the host name has another address to try. The client's next
// datagram goes to that other address, and the endpoint does not count as failed.
func (n namedUse) isOver() bool { return n.addr != nil && n.addr.Moves() != n.moves }

// reached records that the address has answered.
func (n namedUse) reached(r *lb.Resolver) {
	if n.addr != nil {
		r.Reached(lb.UDP, n.addr.Addr())
	}
}

// addressFailed is dialFailed for one address of a UDP endpoint. If the endpoint's host name has another address that
// is not known to fail, the endpoint does not count as failed.
func (s *service) addressFailed(r *lb.Resolver, m *lb.Member, n namedUse, err error) {
	cause, local := causeOf(err)
	message := "dial failed, trying another "
	if isRefusal(err) {
		message = "datagram refused, the client's next one goes to another "
	}
	if local || n.addr == nil || !r.Failed(lb.UDP, m.Endpoint, n.addr.Addr().Addr()) {
		s.notReached(m, err, message+"endpoint")
		return
	}
	s.at(0).dialsFailed[cause].Add(1)
	s.troubles.warn(s.log, message+"address of the endpoint", "endpoint", m.Address(),
		"address", n.addr.Addr(), "error", err)
}
